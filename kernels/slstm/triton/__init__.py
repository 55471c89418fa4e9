"""The sLSTM in Triton: fused over time, and fused for a step."""
