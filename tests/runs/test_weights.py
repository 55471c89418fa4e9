"""The names of weights in files: plain, whoever compiled or wrapped what."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from xlstm_rl import RecurrentPPO, load_policy
from xlstm_rl.runs.weights import plain_weights, todays_weights


def _compile(module: torch.nn.Module) -> Any:
    return torch.compile(module, backend="eager")


class _Wrapper(torch.nn.Module):
    """Holds a network as DataParallel does, and lets everything through."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)


def _network(policy: Any) -> Any:
    policy.network = _compile(policy.network)
    return policy


def _parts(policy: Any) -> Any:
    policy.network.trunk.encoder = _compile(policy.network.trunk.encoder)
    policy.network.trunk.memory = _compile(policy.network.trunk.memory)
    policy.network.action_head = _compile(policy.network.action_head)
    policy.normalizer = _compile(policy.normalizer)
    return policy


def _inside_each_other(policy: Any) -> Any:
    policy.network.action_head = _compile(policy.network.action_head)
    policy.network.value_head.hidden = _Wrapper(_compile(policy.network.value_head.hidden))
    return _network(policy)


def _in_place(policy: Any) -> Any:
    policy.network.compile(backend="eager")
    policy.network.trunk.memory.compile(backend="eager")
    return policy


def _beside(policy: Any) -> Any:
    policy.fast = _compile(policy.network)
    return policy


def _wrapped(policy: Any) -> Any:
    policy.network = _Wrapper(policy.network)
    return policy


WRAPPED = {
    "the network": _network,
    "parts of it": _parts,
    "a wrapped part and the network": _inside_each_other,
    "in place": _in_place,
    "the whole policy": _compile,
    "a twin beside it": _beside,
    "a wrapper": _wrapped,
}


@pytest.mark.parametrize("name", WRAPPED)
@pytest.mark.filterwarnings("ignore:.*isinstance.*treespec:FutureWarning")
def test_a_compiled_policy_is_saved_by_the_plain_names(
    sections: dict[str, Any], trained: RecurrentPPO, run: Path, tmp_path: Path, name: str
) -> None:
    plain = load_file(run / "checkpoints" / "64" / "policy.safetensors")
    agent = RecurrentPPO("xlstm_rl/CartPoleNoVel-v1", seed=5, **sections)
    agent.policy.load_state_dict(trained.policy.state_dict())
    agent.policy = WRAPPED[name](agent.policy)
    obs, steps = np.ones((3, 2), np.float32), agent.steps_done
    expected, _ = agent.policy.act(obs)
    folder = agent.save(tmp_path / "compiled")
    saved = load_file(folder / "checkpoints" / str(steps) / "policy.safetensors")
    assert saved.keys() == plain.keys()
    assert all(torch.equal(saved[key], plain[key]) for key in plain)
    np.testing.assert_array_equal(load_policy(folder).act(obs)[0], expected)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod."])
@pytest.mark.parametrize("inside", ["", "network.", "network.trunk.memory."])
def test_a_file_with_the_names_of_a_wrapper_is_loaded(run: Path, inside: str, prefix: str) -> None:
    expected = load_policy(run).state_dict()
    path = run / "checkpoints" / "64" / "policy.safetensors"
    weights = load_file(path)
    save_file(
        {
            inside + prefix + key[len(inside) :] if key.startswith(inside) else key: value
            for key, value in weights.items()
        },
        path,
    )
    description = path.with_name("policy.yaml")
    lines = description.read_text().splitlines(keepends=True)  # such a version knew no hash
    description.write_text("".join(one for one in lines if not one.startswith("sha256:")))
    found = load_policy(run).state_dict()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_a_policy_whose_file_has_no_scale_acts_as_it_did(tmp_path: Path) -> None:
    """The previous action counted in the scale of the sum, before files had one."""
    small: Any = {"memory": {"width": 16}, "logger": "none", "env": {"num_envs": 2}}
    policy = {"previous_action": True, "critic": "separate"}
    with RecurrentPPO("xlstm_rl/CartPoleNoVel-v1", policy=policy, **small) as agent:
        agent.learn(64)
        for trunk in (agent.policy.network.trunk, agent.policy.network.critic_trunk):
            trunk.encoder[0].scale.fill_(2**-0.5)  # type: ignore[union-attr, index]
        folder = agent.save(tmp_path / "older") / "checkpoints" / str(agent.steps_done)
    path, description = folder / "policy.safetensors", folder / "policy.yaml"
    kept = {key: value for key, value in load_file(path).items() if not key.endswith("0.scale")}
    assert len(kept) == len(load_file(path)) - 2
    save_file(kept, path)
    lines = description.read_text().splitlines(keepends=True)
    description.write_text("".join(one for one in lines if not one.startswith("sha256:")))
    obs = np.ones((3, 2), np.float32)
    found, expected = load_policy(tmp_path / "older"), agent.policy
    assert found.state_dict().keys() == expected.state_dict().keys()
    params = [one.network(*_joined(one, obs))[0] for one in (found, expected)]
    assert torch.equal(*params)


def _joined(policy: Any, obs: Any) -> Any:
    own = policy.initial_tensors(3)
    x = policy.auxiliary.join(policy.normalizer(torch.from_numpy(obs)), own[:2], None, None, None)
    return {name: one[:, None] for name, one in x.items()}, own[2:], None


def test_a_compiled_network_trains_and_its_optimizer_goes_on(
    sections: dict[str, Any], tmp_path: Path
) -> None:
    agents = []
    for wrap in (lambda policy: policy, _network):
        agent = RecurrentPPO("xlstm_rl/CartPoleNoVel-v1", **sections)
        wrap(agent.policy)
        agents.append(agent.learn(64))
    states = [agent.trainer_state()["optimizer"]["state"] for agent in agents]
    assert states[0].keys() == states[1].keys()
    for key in states[0]:
        torch.testing.assert_close(states[0][key]["exp_avg"], states[1][key]["exp_avg"])


class TiedMemory(torch.nn.Module):
    """Weights that are one under two names, and an attribute that wrappers have as well."""

    def __init__(self) -> None:
        super().__init__()
        self.module = torch.nn.Linear(2, 2)
        self.weight = self.module.weight
        self.other = torch.nn.ModuleDict({"module": self.module})


def test_weights_that_are_tied_are_written_under_each_name() -> None:
    policy = torch.nn.Module()
    policy.network = TiedMemory()
    found = plain_weights(policy)
    assert len(found) == len(policy.state_dict()) == 5
    again = todays_weights(found, policy.state_dict())
    assert again.keys() == policy.state_dict().keys()
    assert len({value.data_ptr() for value in found.values()}) == 5
