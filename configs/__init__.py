"""YAML configurations, one file per task."""

if __name__ != "xlstm_rl.configs":
    raise ImportError("this folder is the package xlstm_rl.configs: import it by that name")
