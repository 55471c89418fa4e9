"""Configuration: nested frozen dataclasses, filled from the command line, YAML and Python.

A value on the command line beats the file, the file beats the default, and every value goes
through the same checks wherever it came from.
"""

from xlstm_rl.config.errors import ConfigError
from xlstm_rl.config.named import find_config, list_configs
from xlstm_rl.config.parse import config_from_dict, config_to_dict, parse_config
from xlstm_rl.config.settings import FLAG_ONLY
from xlstm_rl.config.yaml_file import load_yaml, save_yaml

__all__ = [
    "FLAG_ONLY",
    "ConfigError",
    "config_from_dict",
    "config_to_dict",
    "find_config",
    "list_configs",
    "load_yaml",
    "parse_config",
    "save_yaml",
]
