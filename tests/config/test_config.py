import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pytest
import yaml

from xlstm_rl.config import (
    FLAG_ONLY,
    ConfigError,
    config_from_dict,
    config_to_dict,
    load_yaml,
    parse_config,
    save_yaml,
)


@dataclass(frozen=True)
class Env:
    id: str = "CartPole-v1"
    num_envs: int = 8
    kwargs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.num_envs < 1:
            raise ValueError(f"env.num_envs={self.num_envs}: expected 1 or more")


@dataclass(frozen=True)
class Agent:
    learning_rate: float = 3e-4
    minibatches: int = 4
    segment: int | None = None
    normalize: bool = True
    sizes: tuple[int, ...] = (64, 64)


@dataclass(frozen=True)
class Run:
    seed: int = 0
    name: str | None = None
    mode: Literal["fast", "exact"] = "fast"
    env: Env = field(default_factory=Env)
    agent: Agent = field(default_factory=lambda: Agent(minibatches=2))
    config: str | None = field(default=None, metadata=FLAG_ONLY)

    def __post_init__(self) -> None:
        if self.env.num_envs % self.agent.minibatches:
            raise ValueError(
                f"agent.minibatches={self.agent.minibatches} does not divide "
                f"env.num_envs={self.env.num_envs}"
            )


def refusal(args: list[str], file: Any = None) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(Run, args, file)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_without_words_everything_keeps_the_default_of_its_section() -> None:
    assert parse_config(Run) == Run()
    assert parse_config(Run).agent.minibatches == 2  # Run's own default, not Agent's


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--seed", "3"], Run(seed=3)),
        (["--seed=3"], Run(seed=3)),
        (["--seed", "1", "--seed", "2"], Run(seed=2)),
        (["--env.num-envs", "16"], Run(env=Env(num_envs=16))),
        (["--env.num_envs", "16"], Run(env=Env(num_envs=16))),
        (["--agent.learning-rate", "1e-3"], Run(agent=Agent(1e-3, 2))),
        (["--agent.learning-rate", "-1"], Run(agent=Agent(-1.0, 2))),
        (["--agent.segment", "7"], Run(agent=Agent(minibatches=2, segment=7))),
        (["--agent.segment", "none"], Run()),
        (["--agent.no-normalize"], Run(agent=Agent(minibatches=2, normalize=False))),
        (["--agent.normalize", "false"], Run(agent=Agent(minibatches=2, normalize=False))),
        (["--agent.normalize"], Run()),
        (["--agent.sizes", "1", "2", "3"], Run(agent=Agent(minibatches=2, sizes=(1, 2, 3)))),
        (["--name=--odd"], Run(name="--odd")),
        (["--mode", "exact"], Run(mode="exact")),
        (["--env.kwargs", "{length: 32, p: 1e-3}"], Run(env=Env(kwargs={"length": 32, "p": 1e-3}))),
        (["--env.kwargs.length", "32"], Run(env=Env(kwargs={"length": 32}))),
    ],
)
def test_flags_set_values(args: list[str], expected: Run) -> None:
    assert parse_config(Run, args) == expected


def test_the_command_line_beats_the_file_and_the_file_beats_the_default(tmp_path: Any) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("seed: 5\nname: file\nenv:\n  num_envs: 4\n  kwargs: {length: 8, bits: 2}\n")
    config = parse_config(Run, ["--seed", "7", "--env.kwargs.length", "9"], path)
    assert (config.seed, config.name, config.env.num_envs) == (7, "file", 4)
    assert config.env.kwargs == {"length": 9, "bits": 2}
    assert config.env.id == "CartPole-v1"


def test_values_that_only_fit_together_may_come_from_two_places() -> None:
    file = {"env": {"num_envs": 3}}  # alone it does not fit minibatches
    assert parse_config(Run, ["--agent.minibatches", "3"], file).env.num_envs == 3


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["--seeed", "3"], ["--seeed", "did you mean --seed?"]),
        (["--num-envs", "3"], ["did you mean --env.num-envs?"]),
        (["--env.num-enves", "3"], ["did you mean --env.num-envs?"]),
        (["--env", "3"], ["--env.*"]),
        (["--seed", "x"], ["--seed", "an integer", "'x'"]),
        (["--seed", "1.5"], ["--seed", "an integer", "'1.5'"]),
        (["--seed"], ["--seed", "a value"]),
        (["--seed", "--mode", "fast"], ["--seed", "a value"]),
        (["--mode", "exac"], ["--mode", "fast or exact", "'exac'", "did you mean exact?"]),
        (["--agent.learning-rate", "fast"], ["--agent.learning-rate", "a number"]),
        (["--agent.segment", "long"], ["an integer or none", "'long'"]),
        (["--agent.normalize", "maybe"], ["true or false", "'maybe'"]),
        (["--agent.no-normalize=true"], ["--agent.no-normalize"]),
        (["--agent.sizes", "1", "b"], ["--agent.sizes", "a list", "'1 b'"]),
        (["--env.kwargs", "3"], ["--env.kwargs", "a mapping"]),
        (["--env.kwargs", "{a: [}"], ["--env.kwargs", "YAML"]),
        (["loose"], ["'loose'"]),
        (["--env.num-envs", "0"], ["env.num_envs=0", "(from --env.num-envs)"]),
    ],
)
def test_bad_flags_are_refused_in_one_line(args: list[str], parts: list[str]) -> None:
    message = refusal(args)
    assert all(part in message for part in parts), message


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("seeed: 3", [":seeed", "did you mean seed?"]),
        ("env: {num-envs: 3}", [":env.num-envs", "did you mean env.num_envs?"]),
        ("num_envs: 3", ["did you mean env.num_envs?"]),
        ("zzzz: 3", ["known here", "seed"]),
        ("config: other", [":config", "no such key"]),
        ("env.num_envs: 3", ["section"]),
        ("env: 3", [":env", "a section"]),
        ("seed: [1]", [":seed", "an integer", "[1]"]),
        ("seed: {a: 1}", [":seed", "an integer"]),
        ("seed: 1e-1", [":seed", "an integer", "0.1"]),
        ("seed: true", [":seed", "an integer", "True"]),
        ("seed: null", [":seed", "an integer", "None"]),
        ("seed:", [":seed", "an integer"]),
        ("name: true", [":name", "a string or none"]),
        ("mode: slow", [":mode", "fast or exact", "'slow'"]),
        ("agent: {normalize: yes}", [":agent.normalize", "true or false", "'yes'"]),
        ("agent: {normalize: 1}", [":agent.normalize", "true or false"]),
        ("agent: {sizes: 3}", [":agent.sizes", "a list"]),
        ("agent: {sizes: [a]}", [":agent.sizes", "a list"]),
        ("env: {kwargs: [1]}", [":env.kwargs", "a mapping"]),
        ("env: {kwargs: {1: 2}}", [":env.kwargs", "a mapping"]),
        ("env: {num_envs: 0}", ["env.num_envs=0", "run.yaml:env.num_envs"]),
        ("seed: 1\nseed: 2", ["line 2", "'seed'", "second time"]),
        ("env: {id: a, id: b}", ["line 1", "'id'", "second time"]),
        ("- 1", ["a mapping", "a list"]),
        ("just words", ["a mapping", "a str"]),
        ("a: [", ["line 1", "YAML"]),
        ("seed: !!python/object/apply:os.getpid []", ["YAML"]),
    ],
)
def test_bad_files_are_refused_in_one_line_with_their_name(
    tmp_path: Any, text: str, parts: list[str]
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    message = refusal([], path)
    assert all(part in message for part in ["run.yaml", *parts]), message


def test_files_that_are_no_text_or_not_there_are_refused(tmp_path: Any) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(bytes(range(128, 256)))
    assert "not a text file" in refusal([], path)
    path.write_bytes(b"seed: \x00")
    assert "run.yaml" in refusal([], path)
    assert "cannot be read" in refusal([], tmp_path / "missing.yaml")
    assert "cannot be read" in refusal([], tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Run()),
        ("# only a comment", Run()),
        ("env:\nagent:\n", Run()),
        ("agent: {learning_rate: 1e-3}", Run(agent=Agent(1e-3, 2))),
        ("agent: {learning_rate: 1}", Run(agent=Agent(1.0, 2))),
        ("agent: {learning_rate: '1e-3'}", Run(agent=Agent(1e-3, 2))),
        ("agent: {normalize: False}", Run(agent=Agent(minibatches=2, normalize=False))),
        ("agent: {segment: 3}", Run(agent=Agent(minibatches=2, segment=3))),
        ("agent: {segment: null, sizes: []}", Run(agent=Agent(minibatches=2, sizes=()))),
        ("name: null", Run()),
        ("name: no", Run(name="no")),
        ("name: 2024-01-01", Run(name="2024-01-01")),
        ("seed: 010", Run(seed=10)),
        ("seed: 1_000", Run(seed=1000)),
    ],
)
def test_files_are_read_as_people_write_them(tmp_path: Any, text: str, expected: Run) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    config = parse_config(Run, (), path)
    assert config == expected
    assert type(config.agent.learning_rate) is float


def test_python_sections_may_be_mappings_or_config_objects_and_are_checked_alike() -> None:
    config = config_from_dict(Run, {"seed": np.int64(3), "env": Env(num_envs=2), "agent": {}})
    assert config == Run(seed=3, env=Env(num_envs=2))
    assert type(config.seed) is int
    with pytest.raises(ConfigError, match=r"^agent.learning_rate: expected a number, got 'x'$"):
        config_from_dict(Run, {"agent": replace(Agent(), learning_rate="x")})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"agent.id: no such key; did you mean env.id\?"):
        config_from_dict(Run, {"agent": Env()})
    with pytest.raises(ConfigError, match=r"^policy.yaml:env.num_env: .* env.num_envs\?$"):
        config_from_dict(Run, {"env": {"num_env": 1}}, source="policy.yaml")


def test_what_is_saved_is_read_back_equal(tmp_path: Any) -> None:
    kwargs = {"a": "1e-3", "b": "no", "c": 1e-5, "d": "12:30", "e": None, "f": "", "g": [1, "2"]}
    config = Run(
        name="null",
        env=Env(kwargs={**kwargs, "h": math.inf, "i": {"j": "0x1f", "k": "true", "l": "1_0"}}),
        agent=Agent(learning_rate=1 / 3, minibatches=2, sizes=(3,)),
        config="given.yaml",
    )
    save_yaml(config_to_dict(config), tmp_path / "config.yaml")
    back = parse_config(Run, (), tmp_path / "config.yaml")
    assert back == replace(config, config=None, name=None)  # the text null means none, as in flags
    # Other programs read YAML 1.1: they must find the same values.
    foreign = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert foreign["env"]["kwargs"] == config.env.kwargs
    assert load_yaml(tmp_path / "config.yaml") == foreign


def test_what_yaml_cannot_hold_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"env.kwargs.f: expected a value that YAML can hold"):
        config_to_dict(Run(env=Env(kwargs={"f": print})))
