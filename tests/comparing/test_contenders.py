import pytest

from xlstm_rl.comparing.contenders import configured, read_contenders
from xlstm_rl.config import ConfigError
from xlstm_rl.memory import MemoryConfig


def test_memories_stand_apart_by_blanks_or_commas_with_their_options() -> None:
    found = read_contenders(["xlstm:pattern=ms,width=32,lstm", "gru", "mlp:num_blocks=2"])
    assert [(one.kind, dict(one.options)) for one in found] == [
        ("xlstm", {"pattern": "ms", "width": 32}),
        ("lstm", {}),
        ("gru", {}),
        ("mlp", {"num_blocks": 2}),
    ]
    assert [one.text for one in found] == [
        *("xlstm:pattern=ms,width=32", "lstm", "gru", "mlp:num_blocks=2"),
    ]


def test_a_memory_of_the_configurations_kind_keeps_its_options_and_another_its_width() -> None:
    own = MemoryConfig(pattern="ms", width=48, num_heads=2)
    same, other, wide = read_contenders(["xlstm:num_blocks=4", "gru", "lstm:width=16"])
    assert same.memory(own) == MemoryConfig(pattern="ms", width=48, num_heads=2, num_blocks=4)
    assert other.memory(own) == MemoryConfig("gru", width=48)
    assert wide.memory(own) == MemoryConfig("lstm", width=16)
    assert wide.memory(own, width=20) == MemoryConfig("lstm", width=20)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["xltsm"], "did you mean xlstm?"),
        (["xlstm:patern=ms"], "did you mean pattern?"),
        (["lstm:pattern=ms"], "lstm has no option 'pattern'; it has num_blocks, width"),
        (["lstm", "width=3"], "an option without a memory"),
        (["lstm", "gru,lstm"], "given twice"),
        (["lstm:width=3", "lstm: width = 3"], "given twice"),
        (["lstm:width=3,width=4"], "width is given twice"),
        (["lstm:kind=gru"], "no option 'kind'"),
        (["gru:width"], "expected gru:option=value, got no value for 'width'"),
        (["xlstm:"], "expected xlstm:option=value"),
    ],
)
def test_what_is_no_memory_is_refused_in_one_line(words: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read_contenders(words)
    assert told in str(raised.value) and "\n" not in str(raised.value)


def test_a_value_that_does_not_fit_names_the_memory() -> None:
    (one,) = read_contenders(["xlstm:num_heads=3"])
    with pytest.raises(ConfigError, match=r"--memories xlstm:num_heads=3: .*does not divide"):
        one.memory(MemoryConfig())


def test_without_memories_the_configurations_own_is_called_by_its_kind() -> None:
    one = configured(["gru", "gru"])
    assert (one.text, one.memory(MemoryConfig("gru", width=12))) == (
        "gru",
        MemoryConfig("gru", width=12),
    )
    assert configured(["gru", "xlstm"]).text == "memory"
