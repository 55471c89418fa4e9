import dataclasses

import pytest

from xlstm_rl.memory import MemoryConfig


@pytest.mark.parametrize(
    ("pattern", "num_blocks", "blocks"),
    [
        ("m", None, "m"),
        ("ms", None, "ms"),
        ("ms", 5, "msmsm"),
        ("msm", 3, "msm"),
        ("7:1", None, "mmmmmmms"),
        ("3:1", 6, "mmmsmm"),
        ("1:0", 2, "mm"),
        ("0:1", 2, "ss"),
        ("ms", 1, "m"),
    ],
)
def test_patterns_are_repeated_to_the_number_of_blocks(
    pattern: str, num_blocks: int | None, blocks: str
) -> None:
    assert MemoryConfig(pattern=pattern, num_blocks=num_blocks).block_types == blocks


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "lsmt"}, "kind='lsmt' is unknown; use one of .*did you mean 'lstm'"),
        ({"kind": "xLSTM"}, "did you mean 'xlstm'"),
        ({"kind": "quux"}, "use one of xlstm, lstm, gru, mlp$"),
        ({"pattern": "mls"}, "pattern='mls'.*did you mean 'ms'"),
        ({"pattern": "MS"}, "did you mean 'ms'"),
        ({"pattern": ""}, "pattern='' is no order"),
        ({"pattern": "0:0"}, "pattern='0:0' is no order"),
        ({"pattern": "7:"}, 'e.g. "7:1"'),
        ({"num_heads": 3}, r"num_heads=3 does not divide .*memory\.width=64; use 1, 2, 4, 8"),
        ({"pattern": "s", "num_heads": 3}, r"num_heads=3 does not divide memory\.width=64"),
        ({"pattern": "ms", "slstm_num_heads": 5}, "slstm_num_heads=5 does not divide"),
        ({"qkv_block_size": 5}, "qkv_block_size=5 does not divide the inner width 128"),
        ({"width": 0}, "width=0 must be an integer of at least 1"),
        ({"width": 64.0}, r"width=64\.0 must be an integer"),
        ({"num_blocks": 0}, "num_blocks=0 must be"),
        ({"num_heads": True}, "num_heads=True must be"),
        ({"conv_window": -1}, "conv_window=-1 must be an integer of at least 0"),
        ({"conv_window": 1}, "conv_window=1 sees the present step alone; use at least 2"),
        ({"expansion": 0.0}, r"expansion=0\.0"),
        ({"feed_forward_factor": float("nan")}, "feed_forward_factor=nan"),
        ({"forget_gate": "sigmoidal"}, "did you mean 'sigmoid'"),
        ({"backend": "cuda"}, "backend='cuda' is unknown; use one of auto, reference"),
        ({"feed_forward_activation": "Gelu"}, "did you mean 'gelu'"),
    ],
)
def test_illegal_combinations_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MemoryConfig(**options)  # type: ignore[arg-type]


def test_fields_that_a_kind_does_not_use_do_not_matter() -> None:
    assert MemoryConfig(kind="lstm", width=63, num_heads=4).num_layers == 1


def test_widths_are_rounded_up_as_published() -> None:
    config = MemoryConfig(width=96)
    assert config.inner_width == 192
    assert config.feed_forward_width == 128  # 4/3 * 96 exactly
    assert MemoryConfig(width=72, num_heads=8).inner_width == 192  # 144 up to 3 * 64
    assert MemoryConfig(width=64).feed_forward_width == 128  # 85.3 up to 2 * 64


def test_a_configuration_cannot_be_changed_but_replaced() -> None:
    config = MemoryConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.width = 32  # type: ignore[misc]
    assert dataclasses.replace(config, pattern="msm").block_types == "msm"
    with pytest.raises(ValueError, match="num_heads=7"):
        dataclasses.replace(config, num_heads=7)


def test_the_command_line_can_parse_it() -> None:
    tyro = pytest.importorskip("tyro")
    config = tyro.cli(
        MemoryConfig, args=["--pattern", "7:1", "--num-blocks", "8", "--kind", "xlstm"]
    )
    assert config == MemoryConfig(pattern="7:1", num_blocks=8)
    assert tyro.cli(MemoryConfig, args=[]) == MemoryConfig()
