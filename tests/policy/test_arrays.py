"""Numbers in every form that an environment or a caller may have them in."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from xlstm_rl import RecurrentPPO
from xlstm_rl.collection.env_adapter import VectorEnvAdapter
from xlstm_rl.policy import Policy
from xlstm_rl.policy.arrays import as_tensor

Make = Callable[..., Policy]
VALUES = np.array([[1.5, -2.0, 0.25], [0.0, 4.0, -0.5]])


class LazyFrames:
    """Answers numbers when it is asked for an array, as Gymnasium's frame stack did."""

    def __init__(self, values: np.ndarray) -> None:
        self._values = values

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self._values if dtype is None else self._values.astype(dtype)


def _read_only(values: np.ndarray) -> np.ndarray:
    out = values.copy()
    out.flags.writeable = False
    return out


def _in_a_record(values: np.ndarray) -> np.ndarray:
    table = np.zeros(values.shape, dtype=[("flag", "u1"), ("x", values.dtype)])
    table["x"] = values
    return table["x"]  # strides that are no multiple of the size of a number


FORMS: dict[str, Callable[[np.ndarray], Any]] = {
    "plain": lambda x: x,
    "negative strides": lambda x: x[:, ::-1].copy()[:, ::-1],
    "every second": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "in Fortran's order": np.asfortranarray,
    "transposed": lambda x: x.T.copy().T,
    "read-only": _read_only,
    "broadcast": lambda x: np.broadcast_to(x[:1], x.shape),
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "unaligned": _in_a_record,
    "longdouble": lambda x: x.astype(np.longdouble),
    "float16": lambda x: x.astype(np.float16),
    "list": lambda x: x.tolist(),
    "tuple of arrays": tuple,
    "list of tensors": lambda x: [torch.from_numpy(row.copy()) for row in x],
    "LazyFrames": LazyFrames,
    "a tensor": lambda x: torch.from_numpy(x.copy()),
    "a strided tensor": lambda x: torch.from_numpy(x.T.copy()).T,
}
DTYPES = [*"?bBhHiIlLqQefdg", ">i4", ">u2", ">f8"]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_tensor(form: str) -> None:
    found = as_tensor(FORMS[form](VALUES))
    expected = VALUES[[0, 0]] if form == "broadcast" else VALUES
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (2,), (2, 3)])
def test_every_dtype_and_shape_keeps_its_numbers(dtype: str, shape: tuple[int, ...]) -> None:
    values = np.ones(shape, dtype)
    found = as_tensor(values)
    assert tuple(found.shape) == shape and bool((found.double() == 1).all())
    assert as_tensor(values[()]).shape == shape


@pytest.mark.parametrize("value", [3, 2.5, True, np.int64(3), np.float32(2.5), np.bool_(True)])
def test_a_bare_number_is_a_tensor_without_axes(value: Any) -> None:
    assert as_tensor(value).item() == value


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("text", r"obs is a str of dtype <U4, expected real numbers"),
        ([[1.0], [1.0, 2.0]], r"obs cannot be made one array"),
        ({"a": 1}, r"obs is a dict of dtype object"),
        (None, r"obs is a NoneType of dtype object"),
        (np.ones(2, complex), r"obs is a ndarray of dtype complex128"),
        (np.array(["2020-01-01"], "M8"), r"obs is a ndarray of dtype datetime64"),
    ],
)
def test_what_is_no_number_is_named(values: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        as_tensor(values, "obs")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_acting_training_and_an_actor_read_every_form(
    make_policy: Make, form: str, dtype: Any
) -> None:
    policy = make_policy(spaces.Box(-5, 5, (3,), dtype))
    raw = FORMS[form](VALUES.astype(dtype))
    expected = VALUES[[0, 0]] if form == "broadcast" else VALUES
    expected, _ = policy.act(expected.astype(dtype))
    np.testing.assert_allclose(np.asarray(policy.act(raw)[0]), expected, atol=1e-6)
    np.testing.assert_allclose(np.asarray(policy.actor(2)(raw)), expected, atol=1e-6)
    if form != "LazyFrames":
        one = np.asarray(policy.actor()(raw[0]))
        np.testing.assert_allclose(one, expected[0], atol=1e-6)


class Odd(SyncVectorEnv):
    """Answers observations, rewards and flags in one of the forms above."""

    form = "plain"

    def step(self, actions: Any) -> Any:
        obs, reward, terminated, truncated, info = super().step(actions)
        return (
            FORMS[self.form](obs),
            FORMS[self.form](reward[None])[0],
            terminated,
            truncated,
            info,
        )


@pytest.mark.parametrize(
    "form", [f for f in FORMS if not ("list" in f or "tu" in f or "tensor" in f or "Lazy" in f)]
)
def test_training_reads_every_form_of_array(countdown: Any, form: str) -> None:
    env = Odd(
        [lambda: countdown((3, 5), (False, True))] * 2, autoreset_mode=AutoresetMode.SAME_STEP
    )
    env.form = form
    agent = RecurrentPPO(
        env,
        memory={"width": 16, "num_heads": 2},
        policy={"previous_reward": True},
        agent={"rollout_steps": 8, "epochs": 1, "minibatches": 1},
        logger={"kind": "none"},
    )
    agent.learn(32)
    assert agent.steps_done == 32


@pytest.mark.parametrize("form", [f for f in FORMS if "tensor" not in f and f != "float16"])
def test_a_rollout_and_acting_read_an_array_alike(countdown_vector: Any, form: str) -> None:
    adapter = VectorEnvAdapter(countdown_vector(AutoresetMode.NEXT_STEP))
    raw = FORMS[form](VALUES)
    assert torch.equal(adapter.tensor(raw), as_tensor(raw))
