"""Names of C for what goes in and comes out."""

import re
from collections.abc import Iterable

from xlstm_rl.export.c.program import C_TYPES, refuse
from xlstm_rl.export.ports import Port


def identifier(text: str) -> str:
    """Return a name that C takes, as close to a text as may be."""
    found = re.sub(r"[^0-9A-Za-z_]", "_", text)
    return found if found and not found[0].isdigit() else f"policy_{found}"


def field_names(ports: Iterable[Port]) -> dict[str, str]:
    """Return the field of each port by its name: `obs.pose/0` is `obs_pose_0`."""
    found: dict[str, str] = {}
    for port in ports:
        name = base = identifier(port.name)
        while name in found.values():
            name = f"{base}_{len(found)}"
        found[port.name] = name
    return found


def c_type(port: Port) -> str:
    """Return the type of a port's numbers in C."""
    if port.dtype not in C_TYPES:
        dtype = str(port.dtype).split(".")[-1]
        refuse(f"{dtype} of {port.name!r}, for which C99 has no type")
    return C_TYPES[port.dtype]
