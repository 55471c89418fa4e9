"""Memory cells as functions on tensors, with episode resets inside."""

if __name__ != "xlstm_rl.kernels":
    raise ImportError("this folder is the package xlstm_rl.kernels: import it by that name")
