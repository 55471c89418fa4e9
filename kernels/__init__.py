"""Memory cells as functions on tensors: reference, torch and Triton executions of one set of equations."""

if __name__ != "xlstm_rl.kernels":
    raise ImportError("this folder is the package xlstm_rl.kernels: import it by that name")
