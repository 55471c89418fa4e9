from collections.abc import Callable

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from xlstm_rl.collection.env_adapter import VectorEnvAdapter

Make = Callable[[AutoresetMode], SyncVectorEnv]
Step = tuple[list[float], float, bool, bool, bool, list[float] | None]


def _live_steps(make: Make, mode: AutoresetMode, count: int) -> list[list[Step]]:
    """Each environment's valid steps: acted-on observation, reward, flags, final observation."""
    adapter = VectorEnvAdapter(make(mode))
    observation = adapter.reset(seed=0)
    reset, dead = np.ones(3, dtype=bool), np.zeros(3, dtype=bool)
    steps: list[list[Step]] = [[], [], []]
    for _ in range(3 * count):
        now = adapter.step(np.zeros(3, dtype=np.int64))
        for row in range(3):
            if dead[row]:
                assert now.reward[row] == 0 and not now.terminated[row] and not now.truncated[row]
                continue
            final: list[float] | None = None
            if now.truncated[row]:
                # Where the mode gives no separate final observation, it is the next observation.
                source = now.observation[row]
                if now.final_observation is not None and row in now.final_rows:
                    source = now.final_observation[list(now.final_rows).index(row)]
                final = source.tolist()
            steps[row].append(
                (
                    observation[row].tolist(),
                    float(now.reward[row]),
                    bool(now.terminated[row]),
                    bool(now.truncated[row]),
                    bool(reset[row]),
                    final,
                )
            )
        observation, reset, dead = now.observation, now.reset, now.autoreset
    return [row[:count] for row in steps]


@pytest.mark.parametrize(
    "mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED]
)
def test_every_mode_gives_the_steps_of_the_environment_itself(
    countdown_vector: Make, mode: AutoresetMode
) -> None:
    lengths = [(3, 5), (4,), (1, 2, 7)]
    truncates = [(False, True), (True,), (False, True, False)]
    for row, steps in enumerate(_live_steps(countdown_vector, mode, 20)):
        expected: list[Step] = []
        episode = 0
        while len(expected) < 20:
            n = lengths[row][episode % len(lengths[row])]
            cut = truncates[row][episode % len(lengths[row])]
            for t in range(n):
                last = t == n - 1
                final = [float(episode), float(n)] if last and cut else None
                expected.append(
                    ([episode, t], t + 1.0, last and not cut, last and cut, t == 0, final)
                )
            episode += 1
        assert steps == expected[:20]
