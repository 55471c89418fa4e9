"""Tests of many cases, in short: the cases that an everyday run leaves out are marked `slow`.

`@pytest.mark.each_value` leaves every value of every argument once, so four of the 24 cases of
three backends, two gates and four lengths. `@pytest.mark.few(3)` leaves the first, the last and
one in between. `each_value("triton")` and `few(3, "triton")` mean only cases with that word in
their names; all others stay.
"""

from collections import defaultdict
from typing import Any

import pytest


def mark_what_is_left_out(items: list[pytest.Item]) -> None:
    """Mark as slow what the tests with one of these marks can do without."""
    cases: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        if not any(map(item.get_closest_marker, ("slow", "gpu"))):  # none of an everyday run
            cases[item.nodeid.partition("[")[0]].append(item)
    for of_one_test in cases.values():
        few = of_one_test[0].get_closest_marker("few")
        each_value = of_one_test[0].get_closest_marker("each_value")
        left_out = []
        if few is not None:
            left_out = _all_but(few.args[0], _with(few.args[1:], of_one_test))
        elif each_value is not None:
            left_out = _without_new_values(_with(each_value.args, of_one_test))
        for item in left_out:
            item.add_marker(pytest.mark.slow)


def _with(words: tuple[str, ...], items: list[pytest.Item]) -> list[pytest.Item]:
    return [item for item in items if all(word in item.nodeid.partition("[")[2] for word in words)]


def _all_but(count: int, items: list[pytest.Item]) -> list[pytest.Item]:
    """Return all but `count` that are spread evenly."""
    last = len(items) - 1
    kept = {round(k * last / max(count - 1, 1)) for k in range(count)}
    return [item for k, item in enumerate(items) if k not in kept]


def _without_new_values(items: list[pytest.Item]) -> list[pytest.Item]:
    """Choose the case with most new values, again and again; return those that are left."""
    seen: set[tuple[str, int]] = set()
    while items:
        best = max(items, key=lambda item: len(_values(item) - seen))
        if _values(best) <= seen:
            break
        seen |= _values(best)
        items = [item for item in items if item is not best]
    return items


def _values(item: Any) -> set[tuple[str, int]]:
    # the same object in every case that it is in; not all can be hashed, or compared
    return {(name, id(value)) for name, value in item.callspec.params.items()}
