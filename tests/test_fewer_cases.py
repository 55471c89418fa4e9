"""What an everyday run leaves out of a test of many cases."""

from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest

from .fewer_cases import mark_what_is_left_out

BACKENDS, LENGTHS = ("reference", "torch", "triton"), (1, 2, 3, 5)


class Case:
    """What pytest knows of one case: its name, values and marks."""

    def __init__(self, mark: pytest.MarkDecorator, backend: str, length: int) -> None:
        self.nodeid = f"tests/test_it.py::test_it[{backend}-{length}]"
        self.callspec = SimpleNamespace(params={"backend": backend, "length": length})
        self.marks = {mark.name: mark.mark}

    def get_closest_marker(self, name: str) -> pytest.Mark | None:
        return self.marks.get(name)

    def add_marker(self, mark: pytest.MarkDecorator) -> None:
        self.marks[mark.name] = mark.mark


def cases(mark: pytest.MarkDecorator) -> list[Any]:
    return [Case(mark, *values) for values in product(BACKENDS, LENGTHS)]


def everyday(items: list[Any]) -> list[Any]:
    mark_what_is_left_out(items)
    return [item for item in items if "slow" not in item.marks]


def test_each_value_stays_in_as_few_cases_as_there_are_of_the_longest_argument() -> None:
    left = everyday(cases(pytest.mark.each_value))
    assert len(left) == 4
    assert {item.callspec.params["backend"] for item in left} == set(BACKENDS)
    assert {item.callspec.params["length"] for item in left} == set(LENGTHS)


@pytest.mark.parametrize(("count", "expected"), [(1, [0]), (2, [0, 11]), (3, [0, 6, 11])])
def test_few_are_spread_evenly(count: int, expected: list[int]) -> None:
    items = cases(pytest.mark.few(count))
    assert [items.index(item) for item in everyday(items)] == expected


def test_as_many_as_there_are_or_more_are_all() -> None:
    assert len(everyday(cases(pytest.mark.few(12)))) == 12
    assert len(everyday(cases(pytest.mark.few(20)))) == 12


def test_what_no_everyday_run_has_stands_in_for_nothing() -> None:
    items = cases(pytest.mark.each_value)
    for item in items:
        if item.callspec.params["backend"] == "triton":
            item.add_marker(pytest.mark.gpu)
    left = everyday(items)
    others = [item.callspec.params for item in left if "gpu" not in item.marks]
    assert {params["length"] for params in others} == set(LENGTHS)
    assert sum("gpu" in item.marks for item in left) == 4  # none is slow that was not


@pytest.mark.parametrize("mark", [pytest.mark.each_value("triton"), pytest.mark.few(4, "triton")])
def test_what_does_not_have_the_word_stays(mark: pytest.MarkDecorator) -> None:
    assert len(everyday(cases(mark))) == 12  # as many as the lengths
    few = everyday(cases(pytest.mark.few(1, "triton")))
    assert [item.callspec.params["backend"] for item in few].count("triton") == 1
    assert len(few) == 9


def test_a_test_without_such_a_mark_keeps_all() -> None:
    assert len(everyday(cases(pytest.mark.parametrize))) == 12
