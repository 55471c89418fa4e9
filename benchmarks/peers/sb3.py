"""sb3-contrib's RecurrentPPO with its own defaults: separate critic LSTM, heads of 64 x 64."""

from sb3_contrib import RecurrentPPO
from stable_baselines3.common.env_util import make_vec_env

import xlstm_rl.envs  # noqa: F401 - registers the environment
from peers import Sizes


class SB3:
    """sb3-contrib."""

    def __init__(self, sizes: Sizes) -> None:
        self.model = RecurrentPPO(
            "MlpLstmPolicy",
            make_vec_env(sizes.env_id, n_envs=sizes.num_envs),
            n_steps=sizes.steps,
            batch_size=sizes.per_rollout // sizes.minibatches,
            n_epochs=sizes.epochs,
            policy_kwargs={"lstm_hidden_size": sizes.width},
            device="cpu",
            seed=0,
        )
        self.parameters = sum(p.numel() for p in self.model.policy.parameters())

    def __call__(self, steps: int) -> None:
        """Train."""
        self.model.learn(steps, reset_num_timesteps=False)


make = SB3
