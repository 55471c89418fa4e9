"""The tasks: the released defaults, and nothing set but what the task itself dictates."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Case:
    """A task, its budget, and the figure to stand beside."""

    options: str
    """Options of `xlstm-rl compare` that say which task it is."""

    total_steps: int

    reach: float | None
    """The mean to reach, of the returns or of the successes; None: no worse than `rivals`."""

    published: str = "-"
    """What others reached, with which budget."""

    seeds: int = 5

    measure: str = "return"
    """`return`, or `success`: what the environment says of it, or else whether an episode paid
    anything, which is the same in MiniGrid."""

    test: tuple[tuple[str, int], ...] = ()
    """Arguments of the environment in which the policies are tested, where they are not those of
    training."""

    rivals: str = "`lstm`, `gru`"
    """Where there is no figure to reach: what to be no worse than."""


def popgym(name: str, total_steps: int = 1_000_000, published: str = "-") -> Case:
    """Return the easy form of one of POPGym's games."""
    # sampled actions: the paper's figures are returns of training, and where an answer has to be
    # found by trying, the most probable action is the same one again and again
    options = f"--env.id popgym:popgym-{name}Easy-v0 --stochastic"
    return Case(options, total_steps, None, published, 2)


def _minigrid(size: str, total_steps: int, published: str = "-") -> Case:
    wrappers = "{minigrid.wrappers:ImgObsWrapper: {}, Symbols: {sizes: [11, 6, 4]}}"
    options = f"--env.id minigrid:MiniGrid-Memory{size}-v0 --env.wrappers '{wrappers}'"
    return Case(options, total_steps, 0.95, published, 2, "success")


def mujoco(env_id: str, hidden: list[int], total_steps: int = 1_000_000) -> Case:
    """Return a body of MuJoCo without its velocities: which numbers of its observation they are."""
    wrappers = f"{{NoVelocity: {{velocities: {hidden}}}}}"
    return Case(
        f"--env.id {env_id} --env.wrappers '{wrappers}'",
        total_steps,
        None,
        seeds=2,
        rivals="sb3-contrib",
    )


CASES = {
    "cartpole": Case(
        "--env.id xlstm_rl/CartPoleNoVel-v1",
        60_000,
        500.0,
        "500 at 100,000 (RL-Zoo, RecurrentPPO, one run)",
    ),
    "pendulum": Case(
        "--env.id xlstm_rl/PendulumNoVel-v1 --agent.gamma 0.9 "
        "--policy.action-distribution.std gsde",
        100_000,
        -170.0,
        "-217.9 +- 140.1 (RL-Zoo, RecurrentPPO); -172.2 with the velocity",
    ),
    "lunar_lander": Case(
        "--env.id xlstm_rl/LunarLanderNoVel-v3",
        1_000_000,
        230.0,
        "TrXL 243, LSTM 125 at 5 million (BenchNetRL)",
    ),
    **{
        f"memory_chain_{length}": Case(
            f"--env.id xlstm_rl/MemoryChain-v0 --env.kwargs.length {length}",
            150_000,
            0.95,
            f"GRU {gru} of 5 seeds (memorax)",
        )
        for length, gru in ((16, 5), (32, 2), (64, 0))
    },
    **{
        f"tmaze_{length}": Case(
            f"--env.id xlstm_rl/TMaze-v0 --env.kwargs.length {length}", 500_000, 0.95
        )
        for length in (100, 1000)
    },
    "parity": Case(
        "--env.id xlstm_rl/Parity-v0 --env.kwargs.length 40 --agent.gamma 0",
        500_000,
        0.95,
        "sLSTM 1.00, mLSTM .53 (xLSTM's tables, supervised)",
        test=(("length", 256),),
    ),
    "associative_recall": Case(
        "--env.id xlstm_rl/AssociativeRecall-v0 --env.kwargs.pairs 16 --env.kwargs.values 4 "
        "--agent.gamma 0",
        500_000,
        0.9,
    ),
    "popgym_position_only_cartpole": popgym(
        "PositionOnlyCartPole", published="GRU 1.00 at 15 million"
    ),
    "popgym_position_only_pendulum": popgym("PositionOnlyPendulum"),
    "popgym_repeat_previous": popgym("RepeatPrevious", published="GRU 1.00 at 15 million"),
    "popgym_concentration": popgym("Concentration"),
    "popgym_multiarmed_bandit": popgym("MultiarmedBandit"),
    "popgym_labyrinth_escape": popgym("LabyrinthEscape"),
    "popgym_labyrinth_explore": popgym("LabyrinthExplore"),
    "popgym_minesweeper": popgym("MineSweeper"),
    "popgym_battleship": popgym("Battleship"),
    "minigrid_memory_s7": _minigrid("S7", 1_000_000),
    "minigrid_memory_s9": _minigrid(
        "S9", 2_000_000, "LSTM on pixels .88 to .92 (recurrent-ppo, 10 runs)"
    ),
    "halfcheetah": mujoco("HalfCheetah-v5", list(range(8, 17))),
    "hopper": mujoco("Hopper-v5", list(range(5, 11))),
    "walker2d": mujoco("Walker2d-v5", list(range(8, 17))),
}


def _compared(case: Case, memories: str, total_steps: int, seeds: int = 2) -> Case:
    """Return a case with the memories that stand side by side in it."""
    options = f"{case.options} --memories {memories}"
    return replace(case, options=options, total_steps=total_steps, seeds=seeds)


def _parts(pattern: str, other: str) -> str:
    """Return the whole stack, the stack without one part after the other, and the other cell."""
    less = ("input_gate=sigmoid", "normalizer=false", "conv1d_kernel_size=0")
    whole = f"xlstm:pattern={pattern}"
    return " ".join([whole, *(f"{whole},{part}" for part in less), f"xlstm:pattern={other}"])


_PARITY = "--env.id xlstm_rl/Parity-v0 --env.kwargs.length 16 --agent.gamma 0"

PARTS = {
    "parts_parity": _compared(Case(_PARITY, 0, None), _parts("s", "m"), 150_000),
    "parts_recall": _compared(CASES["associative_recall"], _parts("m", "s"), 150_000),
    "parts_chain": _compared(CASES["memory_chain_16"], _parts("m", "s"), 60_000),
}
"""What the xLSTM's parts are worth: ablations on the probes."""

_RIVALS = "xlstm lstm gru transformer mamba2 framestack --match parameters"

MEMORIES = {
    f"memories_{name}": _compared(CASES[name], _RIVALS, CASES[name].total_steps)
    for name in ("cartpole", "memory_chain_32", "memory_chain_64", "tmaze_100")
}
"""The default memory beside others of as many weights."""

PEERS = {
    f"peers_{name}": replace(CASES[name], total_steps=200_000)
    for name in ("halfcheetah", "hopper", "walker2d")
}
"""What sb3-contrib learns too, over a budget that it gets through in half an hour."""
