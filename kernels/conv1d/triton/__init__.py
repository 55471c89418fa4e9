"""The causal convolution in Triton, fused with its activation."""
