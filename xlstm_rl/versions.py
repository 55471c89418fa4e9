"""Which version of another package is installed, for what older ones do otherwise."""

from importlib.metadata import version


def installed_version(package: str) -> tuple[int, int]:
    """Return major and minor version of a package, without importing it.

    Raises:
        PackageNotFoundError: it is not installed (an `ImportError`).
    """
    major, minor, *_ = version(package).split(".")
    return int(major), int(minor)
