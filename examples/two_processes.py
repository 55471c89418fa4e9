"""Train one run on several processes.

torchrun --nproc-per-node 2 examples/two_processes.py
python examples/two_processes.py    # the same in one process

Each process plays its own environments; all take the same gradient step. docs/distributed.md.
"""

import torch.distributed as dist

from xlstm_rl import RecurrentPPO, evaluate

ENVS, STEPS = 16, 50_000  # of all processes together


def main() -> None:
    """Train, and evaluate in process 0."""
    if dist.is_torchelastic_launched():
        dist.init_process_group()  # gloo on CPUs, NCCL on GPUs
    count = dist.get_world_size() if dist.is_initialized() else 1
    env = {"num_envs": ENVS // count}
    with RecurrentPPO("CartPole-v1", seed=0, env=env, logger={"kind": "none"}) as agent:
        agent.learn(total_steps=STEPS, progress=True)
        if agent.ranks.index == 0:
            print(f"{agent.ranks.size} processes: {evaluate(agent, episodes=20)}")
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
