"""Train a policy with memory, save it, load it, and let it act.

python examples/train_and_act.py
"""

import gymnasium

from xlstm_rl import RecurrentPPO, evaluate, load_policy

agent = RecurrentPPO("xlstm_rl/CartPoleNoVel-v1", seed=0, memory={"pattern": "ms"})
agent.learn(total_steps=100_000, on_update=lambda step, metrics: print(step, metrics))
folder = agent.save("runs/demo")

policy = load_policy(folder)
result = evaluate(policy, episodes=20, seed=1)
print(f"{result.mean:.1f} +- {result.std:.1f} over {len(result.returns)} episodes")

# The actor keeps the memory's state; `reset=True` says that an episode begins.
env, actor = gymnasium.make("xlstm_rl/CartPoleNoVel-v1"), policy.actor()
obs, info = env.reset(seed=0)
action, done, steps = actor(obs, reset=True), False, 0
while not done:
    obs, reward, terminated, truncated, info = env.step(action)
    done, steps = terminated or truncated, steps + 1
    action = actor(obs)
print(f"one more episode: {steps} steps")

# The same without an actor: state in, state out.
obs, info = env.reset(seed=0)
action, state = policy.act(obs[None], None)
obs, reward, terminated, truncated, info = env.step(action[0])
action, state = policy.act(obs[None], state)
