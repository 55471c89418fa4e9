"""The whole step of a policy of two blocks: one replay of a CUDA graph against the smallest one."""

import torch

from gpu.floors import Work
from gpu.ours import Setups
from gpu.timing import Run


def policy_step(num_envs: int, width: int, device: torch.device) -> tuple[Work, Setups]:
    """An mLSTM and an sLSTM block, 4 observations, 2 actions.

    `graph replay` is the captured step alone, `actor, graph` with the copies around it, as a
    caller pays for it, `actor, eager` the same step without a graph, `smallest graph` the floor:
    a graph of one operation on one number. Without a GPU only the eager actor is there.

    Raises:
        ImportError: gymnasium, tensordict or another package that a policy needs is missing.
    """
    import gymnasium
    import numpy as np

    from xlstm_rl.memory import MemoryConfig
    from xlstm_rl.normalization import NormalizationConfig
    from xlstm_rl.policy import Policy, PolicyConfig
    from xlstm_rl.policy.graph_actor import CudaGraph, GraphActor

    policy = Policy(
        gymnasium.spaces.Box(-1, 1, (4,), np.float32),
        gymnasium.spaces.Discrete(2),
        MemoryConfig(pattern="ms", width=width, num_blocks=2),
        PolicyConfig(),
        NormalizationConfig(),
    ).to(device)
    obs = torch.randn(num_envs, 4, device=device)
    tensors = policy.network.initial_tensors(num_envs, policy.device, critic=False)
    state = sum(tensor.nbytes for tensor in tensors)
    weights = list(policy.network.parameters())
    work = Work(
        2 * state + sum(w.nbytes for w in weights),
        2 * num_envs * sum(w.numel() for w in weights if w.dim() > 1),
    )

    def graph_replay() -> Run:
        # what policy.actor(num_envs, cuda_graph=True) makes, with a hand on the graph
        graph = CudaGraph(policy.device)
        actor = GraphActor(policy, num_envs, True, graph)

        def run(actor: GraphActor = actor) -> None:  # the actor holds what the graph reads
            graph.replay()

        return run

    def actor(cuda_graph: bool) -> Run:
        acting = policy.actor(num_envs, cuda_graph=cuda_graph)
        return lambda: acting(obs)

    def smallest_graph() -> Run:
        one = torch.zeros(1, device=device)
        graph = CudaGraph(policy.device)
        graph.capture(lambda: one.add_(1))

        def run(held: torch.Tensor = one) -> None:  # the graph writes to it
            graph.replay()

        return run

    setups: Setups = {"actor, eager": lambda: actor(False)}
    if device.type == "cuda":
        setups |= {
            "graph replay": graph_replay,
            "actor, graph": lambda: actor(True),
            "smallest graph": smallest_graph,
        }
    return work, setups
