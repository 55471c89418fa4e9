"""The sLSTM: a scalar memory with memory mixing, its equations and their executions."""
