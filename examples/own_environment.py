"""An environment of your own, as in docs/learn/own_environment.md: a picture, locked doors.

python examples/own_environment.py
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from xlstm_rl import RecurrentPPO, evaluate

WAIT, DOORS = 0, 4
Arrays = dict[str, np.ndarray[Any, Any]]


class Doors(gymnasium.Env[Any, Any]):
    """A picture shows the right one of four doors; some steps later it has to be opened."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}

    def __init__(self, steps: int = 10, render_mode: str | None = None) -> None:
        self.steps, self.render_mode = steps, render_mode
        picture = spaces.Box(0, 255, (16, 16, 3), np.uint8)
        time_left = spaces.Box(0.0, 1.0, (1,), np.float32)
        self.observation_space = spaces.Dict({"picture": picture, "time_left": time_left})
        self.action_space = spaces.Discrete(1 + DOORS)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Arrays, Arrays]:
        """Begin an episode: draw the right door and a locked one."""
        super().reset(seed=seed)
        self.step_number = 0
        self.right = int(self.np_random.integers(DOORS))
        self.locked = (self.right + int(self.np_random.integers(1, DOORS))) % DOORS
        return self._observation(), self._info()

    def step(self, action: int) -> tuple[Arrays, float, bool, bool, Arrays]:
        """Take one step; the last one opens a door."""
        self.step_number += 1
        done = self.step_number > self.steps
        reward = float(done and action == 1 + self.right)
        return self._observation(), reward, done, False, self._info()

    def render(self) -> Any:
        """Draw the right door green, the locked one red; a lamp says when they may be opened."""
        doors = np.full((64, DOORS, 3), 128, np.uint8)
        doors[:, self.right], doors[:, self.locked] = (0, 160, 60), (200, 60, 0)
        doors[:8] = 255 if self.step_number >= self.steps else 0
        return doors.repeat(16, axis=1)

    def _observation(self) -> Arrays:
        picture = np.zeros((16, 16, 3), np.uint8)
        if self.step_number == 0:
            picture[4:12, 4 * self.right : 4 * self.right + 4] = 255
        left = 1 - self.step_number / (self.steps + 1)
        return {"picture": picture, "time_left": np.array([left], np.float32)}

    def _info(self) -> Arrays:
        at_the_doors = self.step_number >= self.steps
        mask = np.full(1 + DOORS, at_the_doors)
        mask[WAIT], mask[1 + self.locked] = not at_the_doors, False
        return {"action_mask": mask.astype(np.int8)}


if __name__ == "__main__":
    policy = {"action_mask": "info", "image_encoder": "flat"}
    with RecurrentPPO(Doors, seed=0, policy=policy, logger={"kind": "none"}) as agent:
        agent.learn(total_steps=30_000, progress=True)
        print(evaluate(agent, episodes=100))
        actor = agent.policy.actor()

    env = Doors()
    obs, info = env.reset(seed=1)
    action, done = actor(obs, reset=True, action_mask=info["action_mask"]), False
    while not done:
        obs, reward, done, _, info = env.step(action)
        action = actor(obs, action_mask=info["action_mask"])
    print("opened the right door" if reward else "opened a wrong door")
