import os

import pytest

from xlstm_rl.kernels.native import compilation, library


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the native tests out where nobody could have built the library; else they fail."""
    if library.library() is not None:
        return
    off = os.environ.get("XLSTM_RL_NATIVE", "1").lower() in ("0", "false", "no", "off")
    if not off and _has_compiler():
        return
    for item in items:
        if _is_native(item):
            item.add_marker(pytest.mark.skip(reason=str(library.why_not_native())))


def _has_compiler() -> bool:
    try:
        return bool(compilation.find_compiler())
    except compilation.BuildError:
        return False


def _is_native(item: pytest.Item) -> bool:
    if item.path.parent.parts[-2:] == ("kernels", "native"):
        return True
    values = getattr(getattr(item, "callspec", None), "params", {}).values()
    here = "kernels" in item.path.parts
    return here and any(x == "native" or (isinstance(x, tuple) and "native" in x) for x in values)
