"""The mLSTM: a matrix memory, its equations and their executions."""
