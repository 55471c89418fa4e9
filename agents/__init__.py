"""The algorithms: one base that collects, updates, logs and saves, and a file per algorithm."""

if __name__ != "xlstm_rl.agents":
    raise ImportError("this folder is the package xlstm_rl.agents: import it by that name")
