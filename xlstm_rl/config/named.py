"""The configurations that come with the library, by name."""

from importlib.resources import files
from pathlib import Path

from xlstm_rl.config.errors import ConfigError
from xlstm_rl.options.arguments import did_you_mean, user_path


def list_configs() -> dict[str, str]:
    """Return the names of the library's configurations, each with its file's first comment line."""
    found = {}
    for name, path in sorted(_packaged().items()):
        first, _, _ = path.read_text(encoding="utf-8").partition("\n")
        found[name] = first.removeprefix("#").strip() if first.startswith("#") else ""
    return found


def find_config(name: str) -> Path:
    """Return the file of a named configuration, or the file that `name` is the path of.

    Raises:
        ConfigError: There is neither.
    """
    packaged = _packaged()
    if name in packaged:
        return packaged[name]
    path = user_path(name)
    if path.is_file():
        return path
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        problem = "is a folder" if path.is_dir() else "no such file"
        raise ConfigError(f"--config {name}: {problem}; expected a YAML file")
    hint = did_you_mean(name, packaged)
    raise ConfigError(
        f"--config {name}: no such configuration{hint or '; expected a YAML file or a name'}"
        f" (there are {', '.join(sorted(packaged))})"
    )


def _packaged() -> dict[str, Path]:
    # Wheels are installed as files, so that a resource here is a path.
    folder = Path(str(files("xlstm_rl.configs")))
    return {path.stem: path for path in folder.glob("*.yaml")}
