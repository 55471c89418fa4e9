import copy
import dataclasses
import pickle
from typing import Any

import numpy as np
import pytest
import torch

from xlstm_rl.agents import TrainConfig
from xlstm_rl.config import ConfigError, config_from_dict, config_to_dict, parse_config
from xlstm_rl.memory import MemoryConfig
from xlstm_rl.memory.config import MEMORIES


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
        ({"kind": "lsmt"}, "kind: expected xlstm, lstm, .*, got 'lsmt'; did you mean lstm"),
        ({"kind": "xLSTM"}, "did you mean xlstm"),
        ({"kind": "quux"}, "expected xlstm, lstm, gru, .* or module:Name, got 'quux'$"),
        ({"kind": "no_such_module:Memory"}, "no_such_module:Memory cannot be imported"),
        ({"kind": "math:no_such_name"}, "math:no_such_name cannot be imported"),
        ({"kind": "math:pi"}, "math:pi lacks `config_class`"),
        ({"pattern": "mls"}, "pattern='mls'.*did you mean 'ms'"),
        ({"pattern": "MS"}, "did you mean 'ms'"),
        ({"pattern": ""}, r"pattern='': expected the letters m \(mLSTM\) and s"),
        ({"pattern": "0:0"}, "pattern='0:0': expected"),
        ({"pattern": "7:"}, "e.g. '7:1'"),
        ({"num_heads": 3}, r"num_heads=3 does not divide .*memory\.width=64; use 1, 2, 4, 8"),
        ({"pattern": "s", "num_heads": 3}, r"num_heads=3 does not divide memory\.width=64"),
        ({"pattern": "ms", "slstm_num_heads": 5}, "slstm_num_heads=5 does not divide"),
        ({"qkv_block_size": 5}, "qkv_block_size=5 does not divide the inner width 128"),
        ({"width": 0}, "width=0: expected an integer >= 1$"),
        ({"width": 64.5}, r"width: expected an integer, got 64\.5"),
        ({"num_blocks": 0}, "num_blocks=0: expected an integer >= 1 or none"),
        ({"num_heads": True}, "num_heads: expected an integer, got True"),
        ({"conv1d_kernel_size": -1}, "conv1d_kernel_size=-1: expected an integer >= 2, or 0"),
        ({"conv1d_kernel_size": 1}, "=1: expected an integer >= 2, or 0 for no convolution"),
        ({"proj_factor": 0.0}, r"proj_factor=0\.0: expected a finite number > 0"),
        ({"proj_factor": float("inf")}, r"proj_factor=inf: expected a finite number > 0"),
        ({"feedforward_proj_factor": float("nan")}, "feedforward_proj_factor=nan"),
        ({"forget_gate": "sigmoidal"}, "did you mean sigmoid"),
        ({"input_gate": "sigmoidal"}, "did you mean sigmoid"),
        (
            {"normalizer": False, "forget_gate": "exponential"},
            "normalizer=false with memory.forget_gate=exponential: without a normaliser",
        ),
        (
            {"normalizer": False, "backend": "native"},
            "backend=native with memory.normalizer=false: only torch runs this cell",
        ),
        (
            {"input_gate": "sigmoid", "backend": "triton"},
            "backend=triton with memory.input_gate=sigmoid: only torch",
        ),
        ({"backend": "cuda"}, "backend: expected auto, reference, .*, got 'cuda'"),
        ({"feedforward_activation": "Gelu"}, "did you mean gelu"),
        ({"patern": "ms"}, "memory.patern: no such option; did you mean pattern"),
    ],
)
def test_illegal_combinations_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MemoryConfig(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [kind for kind in MEMORIES.classes if kind != "xlstm"])
def test_an_option_of_another_kind_is_refused(kind: str) -> None:
    assert MemoryConfig(kind=kind, width=63).width == 63
    with pytest.raises(
        ValueError, match=f"pattern: an option of memory.kind=xlstm, but memory.kind is {kind}"
    ):
        MemoryConfig(kind=kind, pattern="m")
    with pytest.raises(ConfigError, match=f"^--memory.backend: .*=xlstm, .* is {kind}$"):
        parse_config(TrainConfig, ["--memory.backend", "triton", "--memory.kind", kind])


@pytest.mark.parametrize("kind", list(MEMORIES.classes))
def test_the_factory_makes_the_options_of_the_kind(kind: str) -> None:
    config = MemoryConfig(kind=kind, width=32)
    assert type(config) is MEMORIES.find(kind)
    assert config == MemoryConfig(kind, width=32) == type(config)(width=32)
    assert copy.deepcopy(config) == pickle.loads(pickle.dumps(config)) == config
    assert hash(config) == hash(MemoryConfig(kind=kind, width=32))
    with pytest.raises(ValueError, match=r"memory\.kind"):
        dataclasses.replace(config, kind="gru" if kind != "gru" else "mlp")


def test_old_names_are_taken_and_can_be_read() -> None:
    old = MemoryConfig(pattern="ms", expansion=1.5, conv_window=3, feed_forward_factor=2.0)
    new = MemoryConfig(
        pattern="ms", proj_factor=1.5, conv1d_kernel_size=3, feedforward_proj_factor=2.0
    )
    assert old == new
    assert (new.expansion, new.conv_window, new.feed_forward_factor) == (1.5, 3, 2.0)
    assert new.feed_forward_width == new.feedforward_width
    assert parse_config(TrainConfig, ["--memory.conv-window", "3"]).memory.conv_window == 3
    assert config_from_dict(TrainConfig, {"memory": {"expansion": 1.5}}).memory.proj_factor == 1.5
    with pytest.raises(ValueError, match="expansion is the old name of proj_factor"):
        MemoryConfig(expansion=1.5, proj_factor=1.5)
    with pytest.raises(AttributeError, match="no attribute 'expnsion'"):
        new.expnsion  # noqa: B018


def test_a_file_of_version_0_1_holds_the_options_of_all_kinds() -> None:
    xlstm = config_to_dict(MemoryConfig(pattern="ms", num_blocks=3))
    names = {new: old for old, new in MemoryConfig.renamed.items()}
    old = {names.get(name, name): value for name, value in xlstm.items()}
    assert config_from_dict(MemoryConfig, old) == MemoryConfig(pattern="ms", num_blocks=3)
    gru = config_from_dict(TrainConfig, {"memory": {**old, "kind": "gru"}}).memory
    assert gru == MemoryConfig(kind="gru", num_blocks=3)
    del old["backend"]  # written by hand
    with pytest.raises(ConfigError, match=r"memory.pattern: an option of memory.kind=xlstm, but"):
        config_from_dict(TrainConfig, {"memory": {**old, "kind": "gru"}})


@pytest.mark.parametrize(
    "number", [1e2, np.int64(100), np.float32(100), torch.tensor(100), torch.tensor(100.0)]
)
def test_whole_numbers_of_any_type_are_counts(number: Any) -> None:
    width = MemoryConfig(kind="gru", width=number).width
    assert width == 100
    assert type(width) is int


def test_widths_are_rounded_up_as_published() -> None:
    config = MemoryConfig(width=96)
    assert config.inner_width == 192
    assert config.feedforward_width == 128  # 4/3 * 96 exactly
    assert MemoryConfig(width=72, num_heads=8).inner_width == 192  # 144 up to 3 * 64
    assert MemoryConfig(width=64).feedforward_width == 128  # 85.3 up to 2 * 64


def test_a_configuration_cannot_be_changed_but_replaced() -> None:
    config = MemoryConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.width = 32  # type: ignore[misc]
    assert dataclasses.replace(config, pattern="msm").block_types == "msm"
    with pytest.raises(ValueError, match="num_heads=7"):
        dataclasses.replace(config, num_heads=7)


def test_the_command_line_can_parse_it() -> None:
    config = parse_config(MemoryConfig, ["--pattern", "7:1", "--num-blocks", "8"])
    assert config == MemoryConfig(pattern="7:1", num_blocks=8)
    assert parse_config(MemoryConfig) == MemoryConfig()
