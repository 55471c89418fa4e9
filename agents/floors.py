"""The least time that a run's matrix products could take on this machine."""

import dataclasses
import time
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from xlstm_rl.agents.device import torch_threads
from xlstm_rl.agents.setup import AgentSetup
from xlstm_rl.policy.actor_critic import ActorCritic
from xlstm_rl.policy.encoders.observations import map_observation

_SIZE = 512
_SECONDS = 0.2


def product_floors(agent: AgentSetup) -> dict[str, float]:
    """Return seconds an environment step that the products of acting and of an update would take.

    Operations are counted on the plain torch execution, on one rollout's sizes; the rate is that of
    a large product, measured here with the threads that the agent uses.
    """
    with torch_threads(agent.config.threads):
        rate = product_rate(agent.device)
    counted = count_operations(agent)
    per_rollout = agent.algorithm.rollout_length * agent.env.num_envs
    return {name: operations / rate / per_rollout for name, operations in counted.items()}


def count_operations(agent: AgentSetup) -> dict[str, float]:
    """Return the floating point operations of the products of a rollout and its update, by part."""
    config, algorithm = agent.config, agent.algorithm
    memory = config.memory
    if any(one.name == "backend" for one in dataclasses.fields(memory)):
        memory = dataclasses.replace(memory, backend="torch")  # type: ignore[call-arg]
    envs = agent.env
    network = ActorCritic(
        envs.single_observation_space, envs.single_action_space, memory, config.policy
    ).to(agent.device)
    policy, rows = agent.policy, envs.num_envs
    raw = map_observation(
        lambda one: one.to(agent.device), policy.reader.example(rows, agent.device)
    )
    x: Any = policy.normalizer(raw)
    auxiliary = policy.auxiliary
    if auxiliary.is_active:
        own = auxiliary.initial_tensors(rows, agent.device)
        x = auxiliary.join(x, own, None, torch.zeros(rows, device=agent.device), None)
    steps = algorithm.rollout_length
    sequence = map_observation(lambda one: one.unsqueeze(1).expand(-1, steps, *one.shape[1:]), x)
    state = network.initial_tensors(rows, agent.device)
    epochs = float(algorithm.epochs)
    with torch.no_grad():
        acting = _operations(lambda: network.actor_step(x, state[: _actor_size(network)], None))
    counted: dict[str, float] = {"acting": acting * steps}
    with FlopCounterMode(display=False):  # so that its backward pass is in torch's operations too
        params, value, _ = network(sequence, state, None)
        loss = params.sum() + value.sum()
    counted["backward"] = epochs * _operations(lambda: torch.autograd.backward(loss))
    with torch.no_grad():
        counted["forward"] = epochs * _operations(lambda: network(sequence, state, None))
        if network.critic_trunk is not None:
            critic = state[_actor_size(network) :]
            counted["values"] = _operations(lambda: network.critic_sequence(sequence, critic, None))
    return counted


def product_rate(device: torch.device) -> float:
    """Return the floating point operations a second of a large float32 product on a device."""
    a, b = torch.randn(2, _SIZE, _SIZE, device=device)
    best, began = 0.0, time.perf_counter()
    while time.perf_counter() - began < _SECONDS:
        start = time.perf_counter()
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = max(best, 2 * _SIZE**3 / (time.perf_counter() - start))
    return best


def _operations(run: Any) -> float:
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


def _actor_size(network: ActorCritic) -> int:
    return len(network.trunk.memory.state_keys)
