"""Encoders of one's own, and hidden layers of the heads."""

import sys
import types
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from xlstm_rl import RecurrentPPO, load_policy
from xlstm_rl.agents import TrainConfig
from xlstm_rl.config import config_to_dict, parse_config
from xlstm_rl.envs.spaces.leaves import space_leaves
from xlstm_rl.export import export_policy
from xlstm_rl.policy.config import PolicyConfig

SPACES = {
    "vector": spaces.Box(-1.0, 1.0, (2, 3)),
    "image": spaces.Box(0, 255, (8, 8, 3), np.uint8),
    "discrete": spaces.Discrete(5, start=2),
    "multi_discrete": spaces.MultiDiscrete([2, 3]),
    "nested": spaces.Dict(
        observation=spaces.Box(-1.0, 1.0, (4,)),
        pair=spaces.Tuple((spaces.Discrete(3), spaces.MultiBinary(2))),
    ),
}


class Room(gymnasium.Env[Any, Any]):
    """Observes samples; pays by the action; episodes of 3 steps."""

    action_space = spaces.Discrete(2)

    def __init__(self, space: Any) -> None:
        self.observation_space = space

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        return self.observation_space.sample(), float(action), self.t == 3, False, {}


class Own(nn.Module):
    """Sums what comes over its axes, and checks that it comes in rows."""

    def __init__(self, space: Any, width: int, gain: float = 1.0) -> None:
        super().__init__()
        self.leaves = space_leaves(space)
        self.layer = nn.Linear(len(self.leaves), width)
        self.gain = gain

    def forward(self, x: Any) -> Tensor:
        parts = [x] if isinstance(x, Tensor) else [x[leaf.name] for leaf in self.leaves]
        rows = []
        for leaf, part in zip(self.leaves, parts, strict=True):
            shape = leaf.space.shape or ()
            is_image = part.dtype == torch.uint8
            assert part.ndim == 1 + (len(shape) if is_image else min(1, len(shape))), part.shape
            scale = 255.0 if is_image else 1.0
            rows.append(
                (part.flatten(1) if part.ndim > 1 else part[:, None]).float().mean(1) / scale
            )
        out: Tensor = self.layer(torch.stack(rows, 1)) * self.gain
        return out


@pytest.fixture(autouse=True)
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module `mine`, in which the encoders of these tests can be found."""
    made: Any = types.ModuleType("mine")
    made.Own, made.Wide, made.Broken, made.Number = Own, Wide, Broken, lambda space, width: 3
    monkeypatch.setitem(sys.modules, "mine", made)
    return made


class Wide(Own):
    """Returns one number too many."""

    def __init__(self, space: Any, width: int) -> None:
        super().__init__(space, width + 1)


class Broken(Own):
    """Fails."""

    def forward(self, x: Any) -> Tensor:
        raise RuntimeError("mat1 and\nmat2")


def agent_of(space: str, memory: str = "ms", **policy: Any) -> RecurrentPPO:
    torch.manual_seed(0)
    return RecurrentPPO(
        lambda: Room(SPACES[space]),
        env={"num_envs": 4, "vectorization": "sync"},
        memory={"pattern": memory, "width": 16, "num_heads": 2},
        policy={"encoder": "mine:Own", **policy},
        agent={"rollout_steps": 8, "minibatches": 2, "epochs": 2},
        logger={"kind": "none"},
    )


VARIANTS: dict[str, dict[str, Any]] = {
    "separate": {"critic": "separate"},
    "shared critic": {"critic": "shared"},
    "shared encoder": {"critic": "separate", "share_encoder": True},
    "auxiliary": {
        "critic": "separate",
        **dict.fromkeys(("previous_action", "first_step", "previous_reward"), True),
    },
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.each_value
def test_what_acts_is_what_trains_with_an_encoder_of_one_s_own(space: str, variant: str) -> None:
    agent = agent_of(space, **VARIANTS[variant])
    agent.learn(64)
    rollout = agent._make_collector().collect()
    data, network = rollout.data, agent.policy.network
    with torch.no_grad():
        params, value, _ = network(data["observation"], rollout.segment_states[0], data["reset"])
        log_prob, _ = network.distribution.log_prob_and_entropy(params, data["action"])
    torch.testing.assert_close(log_prob, data["log_prob"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(value, data["value"], rtol=1e-4, atol=1e-5)
    own = [one for one in network.modules() if isinstance(one, Own)]
    assert len(own) == (2 if variant in ("separate", "auxiliary") else 1)


def test_arguments_and_weights_of_an_encoder_are_saved(tmp_path: Path) -> None:
    agent = agent_of("vector", encoder_kwargs={"gain": 3.0})
    loaded = load_policy(agent.save(tmp_path / "run"))
    assert loaded.policy_config.encoder_kwargs == {"gain": 3.0}
    obs = np.ones((3, 2, 3), np.float32)
    np.testing.assert_array_equal(loaded.act(obs)[0], agent.policy.act(obs)[0])


def test_a_class_is_named_by_where_it_is(module: Any) -> None:
    found: Any = type("Found", (Own,), {"__module__": "mine", "__qualname__": "Found"})
    module.Found = found
    assert agent_of("vector", encoder=found).config.policy.encoder == "mine:Found"
    local: Any = type("Local", (Own,), {})
    agent = agent_of("vector", encoder=local)
    assert agent.config.policy.encoder == "<Local>"
    assert isinstance(agent.policy.network.trunk.encoder.own, local)
    with pytest.raises(ValueError, match=r"<Other> was an object of the training process"):
        agent_of("vector", encoder="<Other>")


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({"encoder": "mine:Nothing"}, r"policy\.encoder: mine:Nothing cannot be imported"),
        ({"encoder": "nowhere:Own"}, r"policy\.encoder: nowhere:Own cannot be imported"),
        ({"encoder": "atuo"}, r"policy\.encoder='atuo': expected auto, .*did you mean auto\?"),
        ({"encoder": "mine:Wide"}, r"returned \[2, 17\] for 2 observations, expected \[2, 16\]"),
        ({"encoder": "mine:Broken"}, r"policy\.encoder=mine:Broken: RuntimeError: mat1 and mat2"),
        ({"encoder": "mine:Number"}, r"made a int, expected a torch\.nn\.Module"),
        ({"encoder_kwargs": {"gian": 1}}, r"mine:Own: TypeError: .*gian"),
        ({"encoder_layers": 2}, r"policy\.encoder_layers=2: .*policy\.encoder is mine:Own"),
        ({"encoder": "auto", "encoder_kwargs": {"a": 1}}, r"encoder_kwargs=.*encoder is auto"),
        ({"head_widths": [8, 0]}, r"policy\.head_widths=\[8, 0\]: expected integers >= 1"),
        ({"head_widths": [8], "head_width": 9}, r"policy\.head_width=9: .*head_widths is set"),
        ({"head_widths": [8], "head_layers": 2}, r"policy\.head_layers=2: .*head_widths is set"),
        ({"head_widths": [], "activation": "relu"}, r"policy\.activation='relu': an option of"),
    ],
)
def test_what_cannot_be_is_one_line(policy: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        agent_of("vector", **policy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("widths", [[], [5], [32, 7], [24, 16, 8]])
@pytest.mark.parametrize("encoder", ["auto", "mine:Own"])
def test_heads_have_the_hidden_layers_that_are_asked_for(widths: list[int], encoder: str) -> None:
    agent = agent_of("vector", encoder=encoder, head_widths=widths)
    for head in (agent.policy.network.action_head, agent.policy.network.value_head):
        hidden = [one.out_features for one in head.hidden if isinstance(one, nn.Linear)]
        assert hidden == widths
    agent.learn(64)
    # The native step, where there is one, against plain modules with gradients.
    policy = agent.policy
    x = policy.normalizer(torch.randn(4, 2, 3))
    tensors = policy.network.initial_tensors(4, critic=False)
    with torch.no_grad():
        fast, after = policy.network.action_step(x, tensors, None)
    slow, expected = policy.network.action_step(x, tensors, None)
    torch.testing.assert_close(fast, slow.detach(), rtol=1e-4, atol=1e-5)
    for one, other in zip(after, expected, strict=True):
        torch.testing.assert_close(one, other.detach(), rtol=1e-4, atol=1e-5)


def test_equal_hidden_layers_are_the_same_written_either_way() -> None:
    one, other = PolicyConfig(head_layers=2, head_width=8), PolicyConfig(head_widths=(8, 8))
    assert one.hidden_widths == other.hidden_widths == (8, 8)


def test_the_command_line_and_files_take_them() -> None:
    words = "--policy.head-widths 64 32 --policy.encoder mine:Own --policy.encoder-kwargs.gain 2"
    config = parse_config(TrainConfig, words.split())
    assert config.policy.head_widths == (64, 32)
    assert config.policy.encoder_kwargs == {"gain": 2}
    again = parse_config(TrainConfig, (), config_to_dict(config))
    assert again == config


@pytest.mark.slow
@pytest.mark.parametrize("space", ["vector", "nested"])
def test_a_policy_with_an_encoder_of_one_s_own_is_exported(space: str, tmp_path: Path) -> None:
    policy = agent_of(space, head_widths=[8, 5], **VARIANTS["auxiliary"]).policy
    export_policy(policy, tmp_path / "policy.pt2", check=True)
