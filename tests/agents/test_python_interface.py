"""What somebody sees who works in Python: representations, help, completion, the bar."""

import builtins
import inspect
import io
import pydoc
import runpy
import sys
import types
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from xlstm_rl import MemoryConfig, RecurrentA2C, RecurrentPPO, make_memory
from xlstm_rl.agents import PPOConfig, TrainConfig
from xlstm_rl.agents.setup import AgentSetup
from xlstm_rl.envs import EnvConfig
from xlstm_rl.options.fields import own_fields
from xlstm_rl.options.kinds import is_section
from xlstm_rl.runs.loggers import LoggerConfig

ROOT = Path(__file__).parents[2]
SMALL: dict[str, Any] = {
    "env": {"num_envs": 2},
    "memory": {"width": 8, "num_heads": 2},
    "agent": {"rollout_steps": 8},
    "logger": {"kind": "none"},
}


def test_a_configuration_shows_what_differs_from_its_defaults() -> None:
    config = TrainConfig(seed=3, agent=PPOConfig(epochs=4), memory=MemoryConfig(kind="gru"))
    assert repr(config) == "TrainConfig(seed=3, memory=GRUConfig(), agent=PPOConfig(epochs=4))"
    assert repr(EnvConfig(kwargs={"length": 3})) == "EnvConfig(kwargs={'length': 3})"
    assert eval(repr(PPOConfig(epochs=4, clip=0.1))) == PPOConfig(epochs=4, clip=0.1)
    several = LoggerConfig("csv,wandb")
    assert repr(several) == "LoggerConfig('csv,wandb')" and eval(repr(several)) == several
    named = LoggerConfig("jsonl,wandb", project="x")
    assert repr(named) == "LoggerConfig('jsonl,wandb', project='x')" and eval(repr(named)) == named


def test_representations_are_short_and_say_what_matters() -> None:
    agent = RecurrentA2C("CartPole-v1", **SMALL)
    agent.learn(16)
    policy = agent.policy
    for one, words in (
        (agent, ("RecurrentA2C('CartPole-v1', 16 steps done", "XLSTMConfig(width=8", "2 env")),
        (policy, ("one of 2 choices", "XLSTMConfig(width=8, num_heads=2)", "weights on cpu")),
        (policy.actor(), ("Actor(one environment, most probable actions",)),
        (policy.actor(num_envs=3, deterministic=False), ("num_envs=3, sampled actions",)),
        (policy.network.trunk.memory, ("XLSTMStack(XLSTMConfig(width=8", "weights, a state of")),
        (make_memory({"kind": "mlp"}), ("MLPMemory(MLPConfig()", "a state of 0")),
    ):
        text = repr(one)
        assert all(word in text for word in words), text
        assert text.count("\n") <= 4 and max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("algorithm", [RecurrentPPO, RecurrentA2C])
def test_help_begins_with_an_example_that_works(
    algorithm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = inspect.getdoc(algorithm) or ""  # from 3.13 on the signature before it is long
    assert document in pydoc.plain(pydoc.render_doc(algorithm)).replace("\n |  ", "\n").replace(
        "\n |\n", "\n\n"
    )
    before, _, rest = document.partition("For example:\n\n")
    assert rest and len(before.splitlines()) < 8
    lines = []
    for line in rest.splitlines():
        if line and not line.startswith(" " * 4):
            break
        lines.append(line[4:])
    example = "\n".join(lines).replace("total_steps=100_000", "total_steps=1")
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "help", "exec"), {})
    assert (tmp_path / "runs" / "demo" / "latest").is_file()


def test_the_keys_of_sections_are_those_of_their_options() -> None:
    # What `.ci/write_option_types.py` writes: run it where this fails.
    script = runpy.run_path(str(ROOT / ".ci" / "write_option_types.py"))
    assert script["is_current"]()


def test_every_section_has_a_typed_argument() -> None:
    hints = get_type_hints(AgentSetup.__init__)
    sections = [name for name, (_, kind) in own_fields(TrainConfig).items() if is_section(kind)]
    for name in sections:
        assert "Options" in str(hints[name]), name


def test_a_memory_is_made_of_a_mapping() -> None:
    memory = make_memory({"pattern": "ms", "width": 16})
    assert memory.config == MemoryConfig(pattern="ms", width=16)  # type: ignore[attr-defined]
    assert make_memory({"kind": "gru"}).width == 64
    for wrong, message in (
        ({"patern": "ms"}, r"memory\.patern: no such option; did you mean pattern\?"),
        ({"width": 0}, r"memory\.width=0: expected an integer >= 1"),
        ("ms", r"make_memory got a str, expected a MemoryConfig or a mapping"),
        (PPOConfig(), r"make_memory got a PPOConfig"),
    ):
        with pytest.raises(ValueError, match=message):
            make_memory(wrong)  # type: ignore[arg-type]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def learn_with_a_bar(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO) -> str:
    monkeypatch.setattr(sys, "stderr", stream)
    agent = RecurrentA2C("CartPole-v1", **SMALL)
    agent.learn(32, progress=True).learn(32, progress=True)
    return stream.getvalue()


def test_a_bar_is_shown_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "100%" in learn_with_a_bar(monkeypatch, Terminal())
    text = learn_with_a_bar(monkeypatch, io.StringIO())
    assert "step 32" in text and "step 64" in text and "\x1b" not in text


def test_a_bar_ends_with_a_training_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(step: int, metrics: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "stderr", Terminal())
    agent = RecurrentA2C("CartPole-v1", **SMALL)
    for _ in range(2):  # a bar that is left open would refuse another one
        with pytest.raises(KeyboardInterrupt):
            agent.learn(32, fail, progress=True)


def test_nothing_is_shown_where_it_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    RecurrentA2C("CartPole-v1", **SMALL).learn(32)
    assert capsys.readouterr() == ("", "")


def test_a_notebook_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []

    class Output:
        """The widget that rich draws into."""

        def __enter__(self) -> None:
            shown.append("widget")

        def __exit__(self, *_: object) -> None: ...

        def clear_output(self, wait: bool) -> None: ...

    shell = type("ZMQInteractiveShell", (), {})()
    display = types.ModuleType("IPython.display")
    display.display = lambda *things, **_: shown.extend(things)  # type: ignore[attr-defined]
    widgets = types.ModuleType("ipywidgets")
    widgets.Output = Output  # type: ignore[attr-defined]
    widgets.__spec__ = types.SimpleNamespace()  # type: ignore[assignment]
    monkeypatch.setattr(builtins, "get_ipython", lambda: shell, raising=False)
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setitem(sys.modules, "ipywidgets", widgets)
    learn_with_a_bar(monkeypatch, io.StringIO())
    assert "widget" in shown
    monkeypatch.delitem(sys.modules, "ipywidgets")
    assert "step 32" in learn_with_a_bar(monkeypatch, io.StringIO())  # lines, and no warning
