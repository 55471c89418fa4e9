"""The causal depthwise convolution in front of the cells."""
