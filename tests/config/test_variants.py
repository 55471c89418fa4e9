"""Sections that may be of several classes."""

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from xlstm_rl.config import ConfigError, config_from_dict, config_to_dict, parse_config
from xlstm_rl.options.kinds import kinds_of


@dataclass(frozen=True)
class Circle:
    kind: Literal["circle"] = "circle"
    size: int = 1
    smooth: bool = True


@dataclass(frozen=True)
class Square:
    kind: Literal["square"] = "square"
    size: int = 2
    turn: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.turn < 90.0:
            raise ValueError(f"shape.turn={self.turn}: expected 0 to 90")


@dataclass(frozen=True)
class Drawing:
    title: str = ""
    shape: Circle | Square = field(default_factory=lambda: Circle(size=5))


@pytest.mark.parametrize(
    ("args", "shape"),
    [
        ([], Circle(size=5)),
        (["--shape.size", "3"], Circle(size=3)),
        (["--shape.kind", "square"], Square(size=2)),
        (["--shape.turn", "45", "--shape.kind=square"], Square(turn=45.0)),
        (["--shape.kind", "square", "--shape.kind", "circle"], Circle(size=5)),
        (["--shape.kind", "circle", "--shape.no-smooth"], Circle(size=5, smooth=False)),
    ],
)
def test_the_tag_says_of_which_class_a_section_is(args: list[str], shape: Any) -> None:
    assert parse_config(Drawing, args) == Drawing(shape=shape)


def test_the_command_lines_tag_beats_the_files() -> None:
    file = {"shape": {"kind": "square", "size": 7}}
    assert parse_config(Drawing, [], file).shape == Square(size=7)
    assert parse_config(Drawing, ["--shape.kind", "circle"], file).shape == Circle(size=7)


def test_a_section_may_be_a_mapping_or_an_object_of_either_class() -> None:
    for shape in (Circle(size=9), Square(size=9, turn=30.0)):
        assert config_from_dict(Drawing, {"shape": shape}).shape == shape
        assert config_from_dict(Drawing, config_to_dict(Drawing(shape=shape))).shape == shape


@pytest.mark.parametrize(
    ("args", "file", "message"),
    [
        (["--shape.turn", "5"], None, "--shape.turn: an option of shape.kind=square, but "),
        (
            ["--shape.kind", "square"],
            {"shape": {"smooth": False}},
            "shape.smooth: an option of shape.kind=circle, but shape.kind is square",
        ),
        (["--shape.kind", "squre"], None, "expected circle or square, got 'squre'; did you mean"),
        (["--shape.smoth"], None, "--shape.smoth: no such option; did you mean --shape.smooth?"),
        ([], {"shape": {"trun": 5}}, "shape.trun: no such key; did you mean shape.turn?"),
        (
            ["--shape.kind", "square", "--shape.turn", "90"],
            None,
            "shape.turn=90.0: expected 0 to 90 (from --shape.turn)",
        ),
    ],
)
def test_what_does_not_fit_the_class_is_refused(args: list[str], file: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(Drawing, args, file)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_inner_section_may_be_of_several_classes_too() -> None:
    @dataclass(frozen=True)
    class Page:
        number: int
        drawing: Drawing = field(default_factory=lambda: Drawing(shape=Square(size=8)))

    assert parse_config(Page, ["--number", "1"]).drawing.shape == Square(size=8)
    page = parse_config(Page, ["--number", "1", "--drawing.shape.kind", "circle"])
    assert page.drawing.shape == Circle()
    with pytest.raises(ConfigError, match=r"drawing.shape.smooth: an option of .*kind=circle"):
        config_from_dict(Page, {"number": 1, "drawing": {"shape": {"smooth": True}}})


def test_a_union_without_a_tag_is_a_mistake_of_the_program() -> None:
    @dataclass(frozen=True)
    class Untagged:
        size: int = 1

    @dataclass(frozen=True)
    class Holder:
        shape: Any = None

    Holder.__annotations__["shape"] = Circle | Untagged
    with pytest.raises(TypeError, match="no field is a Literal of one word in each"):
        kinds_of(Circle | Untagged)
