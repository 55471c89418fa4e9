"""Gymnasium environments, wrappers and the construction of vector environments."""

if __name__ != "xlstm_rl.envs":
    raise ImportError("this folder is the package xlstm_rl.envs: import it by that name")
