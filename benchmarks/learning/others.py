"""Other tasks of the same families: no default was chosen by any of them."""

from learning.cases import Case, mujoco, popgym

_OURS = {
    "memory_chain_48": ("MemoryChain-v0 --env.kwargs.length 48", 150_000),
    "memory_chain_96": ("MemoryChain-v0 --env.kwargs.length 96", 200_000),
    "tmaze_50": ("TMaze-v0 --env.kwargs.length 50", 300_000),
    "tmaze_200": ("TMaze-v0 --env.kwargs.length 200", 500_000),
    "tmaze_active_50": ("TMaze-v0 --env.kwargs.length 50 --env.kwargs.active true", 500_000),
    "associative_recall_8": (
        "AssociativeRecall-v0 --env.kwargs.pairs 8 --env.kwargs.values 4 --agent.gamma 0",
        200_000,
    ),
    "associative_recall_24": (
        "AssociativeRecall-v0 --env.kwargs.pairs 24 --env.kwargs.values 4 --agent.gamma 0",
        500_000,
    ),
    "navigate_and_return": ("NavigateAndReturn-v0", 300_000),
    "repeat_previous_8": ("RepeatPrevious-v0 --env.kwargs.k 8", 300_000),
    "mountain_car": (
        "MountainCarContinuousNoVel-v0 --policy.action-distribution.std gsde",
        200_000,
    ),
}

_POPGYM = {
    "popgym_noisy_cartpole": ("NoisyPositionOnlyCartPole", 500_000),
    "popgym_noisy_pendulum": ("NoisyPositionOnlyPendulum", 500_000),
    "popgym_velocity_only_cartpole": ("VelocityOnlyCartpole", 300_000),
    "popgym_higher_lower": ("HigherLower", 300_000),
    "popgym_repeat_first": ("RepeatFirst", 300_000),
    "popgym_count_recall": ("CountRecall", 500_000),
    "popgym_autoencode": ("Autoencode", 500_000),
}

_MUJOCO = {
    "swimmer": ("Swimmer-v5", range(3, 8)),
    "inverted_double_pendulum": ("InvertedDoublePendulum-v5", range(5, 8)),
    "ant": ("Ant-v5", range(13, 27)),
}

_ACROBOT = "--env.id Acrobot-v1 --env.wrappers '{NoVelocity: {velocities: [4, 5]}}'"

_TASKS = {
    **{
        name: Case(f"--env.id xlstm_rl/{options}", steps, None)
        for name, (options, steps) in _OURS.items()
    },
    **{name: popgym(game, steps) for name, (game, steps) in _POPGYM.items()},
    **{name: mujoco(env_id, [*hidden], 300_000) for name, (env_id, hidden) in _MUJOCO.items()},
    "acrobot": Case(_ACROBOT, 200_000, None),
}

OTHERS = {
    f"others_{name}": Case(
        f"{case.options} --memories xlstm gru --match parameters", case.total_steps, None, seeds=1
    )
    for name, case in _TASKS.items()
}
