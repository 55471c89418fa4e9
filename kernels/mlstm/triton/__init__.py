"""The mLSTM in Triton: chunkwise over sequences, fused for a step."""
