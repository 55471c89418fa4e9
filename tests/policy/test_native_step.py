"""The actor's step in one native call equals the step module by module."""

import copy
import pickle
import threading
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from xlstm_rl.kernels.native.choose import LOADED
from xlstm_rl.kernels.native.policy_step import StepChain
from xlstm_rl.memory import MemoryConfig
from xlstm_rl.policy.actor_critic import ActorCritic
from xlstm_rl.policy.config import PolicyConfig
from xlstm_rl.policy.native_step import NativeStep

pytestmark = pytest.mark.skipif(not LOADED, reason="needs the native library")

BOX = gymnasium.spaces.Box(-1, 1, (3,), np.float32)
DISCRETE = gymnasium.spaces.Discrete(5)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of every chain that ran to its end."""
    made: list[int] = []
    run = StepChain.run

    def counted(self: StepChain, *args: Any, **kwargs: Any) -> Any:
        found = run(self, *args, **kwargs)
        if found is not None:
            made.append(self.rows)
        return found

    monkeypatch.setattr(StepChain, "run", counted)
    return made


def _network(memory: dict[str, Any], space: Any = BOX, seed: int = 0, **policy: Any) -> ActorCritic:
    torch.manual_seed(seed)
    config = MemoryConfig(**{"width": 16, "num_heads": 2, **memory})
    options = PolicyConfig(**{"critic": "separate", **policy})
    network = ActorCritic(space, gymnasium.spaces.Discrete(3), config, options)
    with torch.no_grad():  # far from the near-constant start
        for weight in network.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    return network


def _inputs(network: ActorCritic, rows: int, space: Any = BOX) -> tuple[Any, Any, Tensor]:
    x = torch.randn(rows, 3) if space is BOX else torch.randint(0, 5, (rows,))
    state = tuple(torch.rand_like(s) + 0.5 for s in network.initial_tensors(rows, critic=False))
    return x, state, torch.arange(rows) % 3 == 1


def _by_modules(network: ActorCritic, *args: Any) -> Any:
    """The step that the reference takes, in float64."""
    wide = copy.deepcopy(network).double()
    x, state, reset = args
    x = x.double() if x.is_floating_point() else x
    return wide.actor_step(x, tuple(s.double() for s in state), reset)


def _assert_equal(found: Any, expected: Any) -> None:
    def flat(parts: Any) -> Iterator[Tensor]:
        for part in parts:
            yield from flat(part) if isinstance(part, tuple) else (part,)

    for one, other in zip(flat(found), flat(expected), strict=True):
        scale = float(other.abs().max()) or 1.0
        torch.testing.assert_close(one.double() / scale, other / scale, rtol=0, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 2, 16, 17, 33])
@pytest.mark.parametrize(
    "memory",
    [
        {"pattern": "m"},
        {"pattern": "s"},
        {"pattern": "ms", "bias": True},
        {"pattern": "m", "conv1d_kernel_size": 0, "forget_gate": "exponential"},
        {"pattern": "sm", "final_norm": False, "width": 48, "num_heads": 4},
    ],
    ids=lambda memory: "-".join(map(str, memory.values())),
)
@torch.no_grad()
def test_a_step_equals_float64(memory: dict[str, Any], rows: int, calls: list[int]) -> None:
    network = _network(memory)
    x, state, reset = _inputs(network, rows)
    for flags in (None, reset, torch.ones_like(reset)):
        _assert_equal(network.actor_step(x, state, flags), _by_modules(network, x, state, flags))
    assert calls == [rows] * 3


@pytest.mark.parametrize(
    ("activation", "encoder_layers", "head_layers"),
    [
        ("tanh", 0, 0),
        ("tanh", 1, 1),
        ("relu", 1, 2),
        ("silu", 3, 1),
        ("silu", 0, 2),
        ("relu", 2, 0),
    ],
)
@torch.no_grad()
def test_layers_and_activations(
    activation: str, encoder_layers: int, head_layers: int, calls: list[int]
) -> None:
    network = _network(
        {"pattern": "m"},
        activation=activation,
        encoder_layers=encoder_layers,
        head_layers=head_layers,
        **({"head_width": 20} if head_layers else {}),
    )
    args = _inputs(network, 5)
    _assert_equal(network.actor_step(*args), _by_modules(network, *args))
    assert calls == [5]


@torch.no_grad()
def test_an_encoder_that_is_no_row_of_layers_runs_in_front(calls: list[int]) -> None:
    network = _network({"pattern": "ms"}, DISCRETE, encoder_layers=1)
    args = _inputs(network, 4, DISCRETE)
    _assert_equal(network.actor_step(*args), _by_modules(network, *args))
    assert calls == [4]


@pytest.mark.parametrize("part", [{"input_gate": "sigmoid"}, {"normalizer": False}], ids=str)
@torch.no_grad()
def test_cells_without_a_part_run_in_torch(part: dict[str, Any], calls: list[int]) -> None:
    network = _network({"pattern": "ms", **part})
    args = _inputs(network, 4)
    _assert_equal(network.actor_step(*args), _by_modules(network, *args))
    assert calls == []


@torch.no_grad()
def test_in_place_writes_the_given_state(calls: list[int]) -> None:
    network = _network({"pattern": "ms"})
    x, state, reset = _inputs(network, 4)
    expected = _by_modules(network, x, state, reset)
    params, after = network.action_step(x, state, reset, inplace=True)
    assert all(new is old for new, old in zip(after, state, strict=True))
    _assert_equal((params, after), (expected[0], expected[2]))
    assert calls == [4]


@torch.no_grad()
def test_weights_are_never_stale(calls: list[int]) -> None:
    network = _network({"pattern": "ms"})
    args = _inputs(network, 4)
    network.actor_step(*args)
    for weight in network.parameters():  # in place, as an optimiser does
        weight.mul_(1.1)
    _assert_equal(network.actor_step(*args), _by_modules(network, *args))
    other = _network({"pattern": "ms"}, seed=1)
    network.load_state_dict(other.state_dict(), assign=True)
    _assert_equal(network.actor_step(*args), _by_modules(other, *args))
    for weight in network.parameters():
        weight.data = 0.9 * weight.data
    _assert_equal(network.actor_step(*args), _by_modules(network, *args))
    network.action_head.output = nn.Linear(64, 3)
    _assert_equal(network.actor_step(*args), _by_modules(network, *args))
    network.trunk.memory.blocks[0] = other.trunk.memory.blocks[0]
    _assert_equal(network.actor_step(*args), _by_modules(network, *args))
    assert len(calls) == 6


@torch.no_grad()
def test_what_could_tell_the_difference_goes_the_ordinary_way(calls: list[int]) -> None:
    network = _network({"pattern": "m"})
    x, state, reset = _inputs(network, 4)
    seen: list[Any] = []
    with network.trunk.memory.blocks[0].up.register_forward_hook(lambda *_: seen.append(1)):
        network.actor_step(x, state, reset)
    with torch.enable_grad():
        params, *_ = network.actor_step(x, state, reset)
    assert params.requires_grad
    with torch.autocast("cpu", torch.bfloat16):
        network.actor_step(x, state, reset)
    network.actor_step(
        x, (state[0].transpose(1, 2).contiguous().transpose(1, 2), *state[1:]), reset
    )
    network.trunk.encoder[1] = nn.Softsign()
    expected = _by_modules(network, x, state, reset)
    assert calls == []
    _assert_equal(network.actor_step(x, state, reset), expected)
    assert calls == [4]  # behind an encoder in torch
    network.action_head.output.register_forward_pre_hook(lambda *_: seen.append(2))
    network.actor_step(x, state, reset)
    assert calls == [4] and seen[-1] == 2


@torch.no_grad()
def test_strides_of_inputs_and_flags(calls: list[int]) -> None:
    network = _network({"pattern": "m"})
    x, state, _ = _inputs(network, 4)
    reset = torch.tensor(True).expand(4)
    expected = _by_modules(network, x, state, reset)
    _assert_equal(network.actor_step(x.t().contiguous().t(), state, reset), expected)
    assert calls == [4]


@torch.no_grad()
def test_a_state_of_another_shape_is_refused_as_ever() -> None:
    network = _network({"pattern": "m"})
    x, state, reset = _inputs(network, 4)
    with pytest.raises(ValueError, match="state"):
        network.actor_step(x, (state[0][:, :-1], *state[1:]), reset)
    with pytest.raises(ValueError, match="reset"):
        network.actor_step(x, state, reset[:-1])


@torch.no_grad()
def test_copies_have_chains_of_their_own() -> None:
    network = _network({"pattern": "m"})
    args = _inputs(network, 4)
    expected = network.actor_step(*args)
    copies = [copy.deepcopy(network), pickle.loads(pickle.dumps(network))]
    for weight in network.parameters():
        weight.zero_()
    for one in copies:
        assert isinstance(one._native_step, NativeStep)
        _assert_equal(one.actor_step(*args), _by_modules(one, *args))
        torch.testing.assert_close(one.actor_step(*args)[0], expected[0])


@torch.no_grad()
def test_threads_may_share_a_policy() -> None:
    network = _network({"pattern": "ms"})
    work = [_inputs(network, 4) for _ in range(8)]
    expected = [network.actor_step(*args) for args in work]
    wrong: list[int] = []

    def act(number: int) -> None:
        with torch.no_grad():
            for _ in range(200):
                params, *_ = network.actor_step(*work[number])
                if not torch.allclose(params, expected[number][0], atol=1e-5):
                    wrong.append(number)

    threads = [threading.Thread(target=act, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@torch.no_grad()
def test_nan_stays_in_its_row() -> None:
    network = _network({"pattern": "ms"})
    x, state, _ = _inputs(network, 4)
    clean, _, _ = network.actor_step(x, state, None)
    x[2] = torch.nan
    params, _, after = network.actor_step(x, state, None)
    rows = [0, 1, 3]
    torch.testing.assert_close(params[rows], clean[rows])
    assert params[2].isnan().all() and all(s[rows].isfinite().all() for s in after)


@pytest.mark.parametrize("pattern", ["m", "s", "ms"])
@pytest.mark.parametrize("threads", [(1, 3), (3, 1)])
def test_the_number_of_threads_may_change_between_two_steps(
    pattern: str, threads: tuple[int, int]
) -> None:
    network = _network({"pattern": pattern, "num_blocks": 2}, critic="shared")
    inputs, before = _inputs(network, 50), torch.get_num_threads()
    try:
        for count in (*threads, threads[0]):  # the memory of a step is laid out for so many
            torch.set_num_threads(count)
            with torch.no_grad():
                found, expected = network.actor_step(*inputs), _by_modules(network, *inputs)
            _assert_equal(found, expected)
            workers = {built.chain.workers for built in network._native_step._built.values()}
            assert count in workers
    finally:
        torch.set_num_threads(before)
