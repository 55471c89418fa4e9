"""Every row of docs/spaces.md: train for two updates, recompute, save, load, evaluate."""

import re
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from xlstm_rl import RecurrentPPO, evaluate, load_policy
from xlstm_rl.collection.collector import Rollout
from xlstm_rl.envs import EnvConfig, autoreset_mode, make_vector_env
from xlstm_rl.evaluation import EvaluationResult

VECTOR = spaces.Box(-np.inf, np.inf, (3,))
CHOICE = spaces.Discrete(3, start=1)
TORQUE = spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 1.0], np.float32))
PAIR = spaces.Dict(arm=TORQUE, gear=spaces.Tuple([CHOICE, spaces.MultiBinary(2)]))


def _image(*shape: int) -> gymnasium.Space[Any]:
    return spaces.Box(0, 255, shape, np.uint8)


OBSERVATIONS: dict[str, gymnasium.Space[Any]] = {
    "Box of floats": VECTOR,
    "Box of integers": spaces.Box(-5, 5, (2, 2), np.int32),
    "Box of uint8, H x W x C": _image(40, 36, 3),
    "Box of uint8, C x H x W": _image(2, 12, 16),
    "Box of uint8, H x W": _image(9, 7),
    "Discrete": spaces.Discrete(5, start=-2),
    "MultiDiscrete": spaces.MultiDiscrete([2, 4], start=[3, 0]),
    "MultiBinary": spaces.MultiBinary((2, 2)),
    "Dict": spaces.Dict(near=VECTOR, eye=_image(8, 8, 3), far=spaces.Box(0, 1, ()), room=CHOICE),
    "Tuple": spaces.Tuple([spaces.Dict(a=VECTOR, b=spaces.MultiBinary(2)), CHOICE]),
}
ACTIONS: dict[str, tuple[gymnasium.Space[Any], dict[str, Any]]] = {
    "Discrete": (CHOICE, {}),
    "MultiDiscrete": (spaces.MultiDiscrete([[2, 3], [4, 2]], start=[[1, 0], [0, 2]]), {}),
    "MultiBinary": (spaces.MultiBinary(4), {}),
    "Box": (TORQUE, {}),
    "Box, tanh": (TORQUE, {"action_bounds": "tanh"}),
    "Box, deviation from the state": (TORQUE, {"action_std": "state"}),
    "Box, gSDE": (TORQUE, {"action_std": "gsde"}),
    "Box of any shape": (spaces.Box(-np.inf, np.inf, (2, 1), np.float64), {}),
    "Dict": (PAIR, {}),
    "Tuple": (
        spaces.Tuple([TORQUE, TORQUE, CHOICE]),
        {"action_bounds": "tanh", "action_std": "state"},
    ),
}
PREVIOUS = {"previous_action": True, "previous_reward": True, "first_step": True}
WITH_MASK = spaces.Dict(seen=VECTOR, action_mask=spaces.MultiBinary(3))
BESIDE: dict[str, tuple[gymnasium.Space[Any], gymnasium.Space[Any], dict[str, Any]]] = {
    "previous_action": (VECTOR, PAIR, {"previous_action": True}),
    "previous_reward": (spaces.Discrete(4), CHOICE, {"previous_reward": True}),
    "first_step": (OBSERVATIONS["Dict"], TORQUE, {"first_step": True}),
    "action_mask: info": (VECTOR, CHOICE, {"action_mask": "info"}),
    "action_mask: observation": (WITH_MASK, CHOICE, {"action_mask": "observation", **PREVIOUS}),
}
TASK = "xlstm_rl/MemoryChain-v0"
LENGTH = {"length": 4}
BACKENDS: dict[str, dict[str, Any]] = {
    "native": {"vectorization": "native", "kwargs": LENGTH},
    "native, on tensors": {"vectorization": "native", "kwargs": {**LENGTH, "tensors": True}},
    "sync": {"vectorization": "sync", "kwargs": LENGTH},
    "async": {"vectorization": "async", "kwargs": LENGTH},
    "a vector environment of yours": {"vectorization": "sync", "kwargs": LENGTH},
}
ROWS: dict[str, tuple[gymnasium.Space[Any], gymnasium.Space[Any], dict[str, Any]]] = {
    **{f"observation: {name}": (space, CHOICE, {}) for name, space in OBSERVATIONS.items()},
    **{f"action: {name}": (VECTOR, *row) for name, row in ACTIONS.items()},
    **{f"auxiliary: {name}": row for name, row in BESIDE.items()},
}


def _agent(make: Any, policy: dict[str, Any], **env: Any) -> RecurrentPPO:
    return RecurrentPPO(
        make,
        env={"num_envs": 3, **env},
        memory={"pattern": "ms", "width": 16, "num_heads": 2},
        policy={"head_width": 16, **policy},
        agent={"rollout_steps": 12, "epochs": 2, "minibatches": 3, "segment_steps": 6},
        logger={"kind": "none"},
    )


def _recompute(agent: RecurrentPPO, rollout: Rollout) -> tuple[torch.Tensor, torch.Tensor]:
    network, data = agent.policy.network, rollout.data
    found = []
    with torch.no_grad():
        for number, leaves in enumerate(rollout.segment_states):
            part = data[:, 6 * number : 6 * number + 6]
            params, value, _ = network(part["observation"], leaves, part["reset"])
            log_prob, _ = network.distribution.log_prob_and_entropy(params, part["action"])
            found.append((log_prob, value))
    log_probs, values = zip(*found, strict=True)
    return torch.cat(log_probs, 1), torch.cat(values, 1)


@pytest.mark.parametrize("row", ROWS)
def test_a_row_of_the_table(any_spaces: Any, tmp_path: Path, row: str) -> None:
    observation, action, policy = ROWS[row]
    # in turn, so that both are met by observations and by actions
    critic, mode = [("shared", "next_step"), ("separate", "same_step")][list(ROWS).index(row) % 2]

    def make() -> Any:
        return any_spaces(observation, action, policy.get("action_mask"))

    agent = _agent(make, {"critic": critic, **policy}, autoreset=mode)
    result = _two_updates_then_saved_and_loaded(agent, make, tmp_path)
    assert set(result.lengths) <= {3, 4, 5}


@pytest.mark.parametrize("mode", [mode.name.lower() for mode in AutoresetMode])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.each_value
def test_a_backend_in_each_autoreset_mode(backend: str, mode: str, tmp_path: Path) -> None:
    config = EnvConfig(TASK, 3, autoreset=mode, **BACKENDS[backend])
    if backend == "a vector environment of yours":
        agent = _agent(make_vector_env(config), {})
    else:
        agent = _agent(TASK, {}, autoreset=mode, **BACKENDS[backend])
    assert autoreset_mode(agent.env) == AutoresetMode[mode.upper()]
    assert getattr(agent.env, "tensors", False) == (backend == "native, on tensors")
    result = _two_updates_then_saved_and_loaded(
        agent, lambda: gymnasium.make(TASK, **LENGTH), tmp_path
    )
    assert result.lengths == [LENGTH["length"] + 1] * 3


def _two_updates_then_saved_and_loaded(
    agent: RecurrentPPO, make: Any, tmp_path: Path
) -> EvaluationResult:
    agent.learn(2 * 3 * 12)
    assert agent.steps_done == 2 * 3 * 12
    with torch.no_grad():  # a policy with opinions
        agent.policy.network.action_head.output.weight.mul_(30.0)
    assert agent._collector is not None
    rollout = agent._collector.collect()
    log_prob, value = _recompute(agent, rollout)
    valid = rollout.data["valid"]
    for ours, stored in ((log_prob, "log_prob"), (value, "value")):
        torch.testing.assert_close(ours[valid], rollout.data[stored][valid], rtol=0, atol=1e-5)

    loaded = load_policy(agent.save(tmp_path / "run"))
    result = evaluate(loaded, make, episodes=3, seed=4)
    assert result == evaluate(agent.policy, make, episodes=3, seed=4)
    return result


@pytest.mark.parametrize("row", ["observation: Tuple", "action: Dict"])
def test_an_actor_of_one_environment_takes_and_gives_nested_values(
    any_spaces: Any, row: str
) -> None:
    observation, action, policy = ROWS[row]
    agent = _agent(lambda: any_spaces(observation, action), policy)
    env, actor = any_spaces(observation, action), agent.policy.actor()
    obs, _ = env.reset(seed=0)
    for t in range(3):
        batch = {"reset": t == 0}
        obs = env.step(actor(obs, **batch))[0]  # refuses what is not in the space


def test_nested_observations_that_do_not_fit_are_named() -> None:
    agent = _agent(lambda: _Static(OBSERVATIONS["Dict"]), {})
    good = {"near": np.zeros((2, 3)), "far": np.zeros(2), "room": np.ones(2, int)}
    good["eye"] = np.zeros((2, 8, 8, 3), np.uint8)
    agent.policy.act(good)
    with pytest.raises(ValueError, match=r"obs 'far' has shape \[3\], expected \[2\]"):
        agent.policy.act({**good, "far": np.zeros(3)})
    with pytest.raises(ValueError, match=r"no part 'room' in .* \['eye', 'far', 'near'\]"):
        agent.policy.act({key: value for key, value in good.items() if key != "room"})


class MyBox(spaces.Box):
    """A Box of a user's own."""


@pytest.mark.parametrize(
    ("observation", "action"),
    [
        (spaces.MultiBinary([3]), spaces.MultiBinary([2])),
        (MyBox(-1, 1, (3,)), MyBox(-1, 1, (2,))),
        (
            spaces.Dict([("z", VECTOR), ("a", CHOICE)]),
            spaces.Discrete(np.int64(3), start=np.int8(1)),
        ),
        (spaces.Box(-1, 1, (3,), ">f4"), spaces.Box(-1, 1, (), np.float64)),
        (spaces.Box(0, 2**40, (2,), np.int64), spaces.Box(0.1, 0.7, (2,), np.longdouble)),
    ],
    ids=str,
)
def test_a_loaded_policy_takes_its_own_environment(
    any_spaces: Any, observation: Any, action: Any, tmp_path: Path
) -> None:
    def make() -> Any:
        return any_spaces(observation, action)

    agent = _agent(make, {})
    _two_updates_then_saved_and_loaded(agent, make, tmp_path)


class _Static(gymnasium.Env[Any, Any]):
    def __init__(self, space: Any) -> None:
        self.observation_space, self.action_space = space, CHOICE


def test_the_documentation_has_these_rows_and_no_others() -> None:
    text = (Path(__file__).parents[1] / "docs" / "spaces.md").read_text(encoding="utf-8")
    tables = text.split("\n## ")[1:]
    found = {
        f"{kind}: {name}"
        for kind, table in zip(("observation", "action", "auxiliary"), tables, strict=False)
        for name in re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    }
    assert found == set(ROWS)
    backends = text.split("\n## Vector backends\n")[1].split("\n## ")[0]
    named = re.findall(r"^\| `([^`]+)` \|", backends, re.MULTILINE)
    assert named == [*BACKENDS, "envpool"]  # which has its test in test_other_packages.py
