"""What other libraries call the options of this one, for "did you mean".

From stable-baselines3 and sb3-contrib, CleanRL, RLlib, rsl_rl and TorchRL.
"""

from collections.abc import Callable, Iterable

from xlstm_rl.options.arguments import did_you_mean

_ROLLOUT_STEPS = "agent.rollout_steps"
_MINIBATCHES = "agent.minibatches"

FOREIGN_NAMES = {
    # collecting
    "n_steps": _ROLLOUT_STEPS,
    "num_steps": _ROLLOUT_STEPS,
    "num_steps_per_env": _ROLLOUT_STEPS,
    "rollout_fragment_length": _ROLLOUT_STEPS,
    "train_batch_size": _ROLLOUT_STEPS,
    "train_batch_size_per_learner": _ROLLOUT_STEPS,
    "frames_per_batch": _ROLLOUT_STEPS,
    "n_envs": "env.num_envs",
    "num_workers": "env.num_envs",
    "num_env_runners": "env.num_envs",
    "num_envs_per_worker": "env.num_envs",
    "num_envs_per_env_runner": "env.num_envs",
    "total_timesteps": "total_steps",
    "total_frames": "total_steps",
    "timesteps": "total_steps",
    "max_iterations": "total_steps",
    "env_id": "env.id",
    "env_name": "env.id",
    "gym_id": "env.id",
    "env_kwargs": "env.kwargs",
    "env_config": "env.kwargs",
    "vec_env_cls": "env.vectorization",
    "wrapper_class": "env.wrappers",
    "cuda": "device",
    "num_gpus": "device",
    # learning
    "n_epochs": "agent.epochs",
    "num_epochs": "agent.epochs",
    "update_epochs": "agent.epochs",
    "num_sgd_iter": "agent.epochs",
    "num_learning_epochs": "agent.epochs",
    "ppo_epoch": "agent.epochs",
    "batch_size": _MINIBATCHES,
    "minibatch_size": _MINIBATCHES,
    "sgd_minibatch_size": _MINIBATCHES,
    "num_minibatches": _MINIBATCHES,
    "num_mini_batches": _MINIBATCHES,
    "num_mini_batch": _MINIBATCHES,
    "n_minibatches": _MINIBATCHES,
    "lr": "agent.learning_rate",
    "anneal_lr": "agent.learning_rate_end",
    "lr_schedule": "agent.learning_rate_schedule",
    "ent_coef": "agent.entropy_coef",
    "entropy_coeff": "agent.entropy_coef",
    "entropy_bonus": "agent.entropy_coef",
    "vf_coef": "agent.value_coef",
    "vf_loss_coeff": "agent.value_coef",
    "value_loss_coef": "agent.value_coef",
    "critic_coef": "agent.value_coef",
    "clip_range": "agent.clip",
    "clip_coef": "agent.clip",
    "clip_param": "agent.clip",
    "clip_epsilon": "agent.clip",
    "clip_range_vf": "agent.value_clip",
    "clip_vloss": "agent.value_clip",
    "vf_clip_param": "agent.value_clip",
    "lam": "agent.gae_lambda",
    "lambda": "agent.gae_lambda",
    "lambda_": "agent.gae_lambda",
    "lmbda": "agent.gae_lambda",
    "discount": "agent.gamma",
    "discount_factor": "agent.gamma",
    "kl_target": "agent.target_kl",
    "desired_kl": "agent.target_kl",
    "grad_clip": "agent.max_grad_norm",
    "clip_grad_norm": "agent.max_grad_norm",
    "max_gradient_norm": "agent.max_grad_norm",
    "norm_adv": "agent.normalize_advantage",
    "normalize_advantages": "agent.normalize_advantage",
    "use_rms_prop": "agent.optimizer",
    "rms_prop_eps": "agent.optimizer_eps",
    "max_seq_len": "agent.segment_steps",
    "seq_len": "agent.segment_steps",
    "sequence_length": "agent.segment_steps",
    "bptt": "agent.segment_steps",
    "norm_obs": "normalization.observation",
    "normalize_obs": "normalization.observation",
    "observation_filter": "normalization.observation",
    "norm_reward": "normalization.reward",
    "clip_obs": "normalization.clip_observation",
    # networks
    "lstm_hidden_size": "memory.width",
    "lstm_cell_size": "memory.width",
    "rnn_hidden_size": "memory.width",
    "rnn_hidden_dim": "memory.width",
    "hidden_size": "memory.width",
    "hidden_dim": "memory.width",
    "d_model": "memory.width",
    "embedding_dim": "memory.width",
    "n_lstm_layers": "memory.num_blocks",
    "num_layers": "memory.num_blocks",
    "rnn_num_layers": "memory.num_blocks",
    "slstm_at": "memory.pattern",
    "use_lstm": "memory.kind",
    "rnn_type": "memory.kind",
    "shared_lstm": "policy.critic",
    "enable_critic_lstm": "policy.critic",
    "vf_share_layers": "policy.critic",
    "share_features_extractor": "policy.share_encoder",
    "features_extractor_class": "policy.encoder",
    "net_arch": "policy.head_widths",
    "fcnet_hiddens": "policy.head_widths",
    "fcnet_activation": "policy.activation",
    "activation_fn": "policy.activation",
    "policy_kwargs": "policy",
    "lstm_use_prev_action": "policy.previous_action",
    "lstm_use_prev_reward": "policy.previous_reward",
    "log_std_init": "policy.action_distribution.initial_log_std",
    "init_noise_std": "policy.action_distribution.initial_log_std",
    "squash_output": "policy.action_distribution.bounds",
    # runs
    "tensorboard_log": "logger.kind",
    "track": "logger.kind",
    "wandb_project_name": "logger.project",
    "wandb_project": "logger.project",
    "wandb_entity": "logger.entity",
    "wandb_group": "logger.group",
    "exp_name": "run_dir",
    "log_dir": "run_dir",
    "logdir": "run_dir",
    "log_path": "run_dir",
    "save_path": "run_dir",
    "log_freq": "agent.log_interval",
    "save_freq": "checkpoint.every_steps",
    "checkpoint_freq": "checkpoint.every_steps",
    "save_interval": "checkpoint.every_steps",
    "eval_freq": "evaluation.every_steps",
    "evaluation_interval": "evaluation.every_steps",
    "optimizer_class": "agent.optimizer",
    "features_extractor_kwargs": "policy.encoder_kwargs",
    "n_eval_episodes": "episodes",
    "num_episodes": "episodes",
    "deterministic": "stochastic",
    "render": "video",
    "video_folder": "video",
    "capture_video": "video",
}
"""Names of others, and the option here that says the same, or comes closest."""

_NOTES = {
    "batch_size": "their number",
    "minibatch_size": "their number",
    "sgd_minibatch_size": "their number",
    "train_batch_size": "of each environment",
    "train_batch_size_per_learner": "of each environment",
    "frames_per_batch": "of each environment",
    "num_workers": "their number altogether",
    "num_env_runners": "their number altogether",
    "deterministic": "the opposite",
    "anneal_lr": "the fraction at the end",
    "max_iterations": "environment steps",
}
"""In what an option differs from its namesake."""


def suggest(name: str, known: Iterable[str], show: Callable[[str], str] = str) -> str:
    """`; did you mean X?` for an option that is not there, else an empty string.

    Names of other libraries come before names that are spelt alike: `n_steps` is no misspelt
    `n_epochs`.

    Args:
        name: as it was written, dotted or not.
        known: the options that there are.
        show: how an option is written.
    """
    known = list(known)
    tail = name.rpartition(".")[2].lower()
    target = FOREIGN_NAMES.get(tail)
    note = f" ({_NOTES[tail]})" if tail in _NOTES else ""
    option = next((one for one in known if target is not None and _is(one, target)), None)
    if option is None:
        note = ""
        option = did_you_mean(name, known).removeprefix("; did you mean ").removesuffix("?")
    return f"; did you mean {show(option)}{note}?" if option else ""


def _is(name: str, target: str) -> bool:
    return name == target or ("." not in name and target.endswith(f".{name}"))
