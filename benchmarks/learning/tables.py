"""Which cases there are, by the tables of the page."""

from learning.cases import CASES, MEMORIES, PARTS, PEERS
from learning.others import OTHERS

GROUPS = {
    "results": CASES,
    "others": OTHERS,
    "parts": PARTS,
    "memories": MEMORIES,
    "peers": PEERS,
}

ALL = {name: case for cases in GROUPS.values() for name, case in cases.items()}
