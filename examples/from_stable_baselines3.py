"""A script for RecurrentPPO of sb3-contrib, line by line: theirs as comments, ours below.

python examples/from_stable_baselines3.py; the names one by one: docs/from_stable_baselines3.md
"""

# from sb3_contrib import RecurrentPPO, and five more imports
import gymnasium

from xlstm_rl import PeriodicCheckpoint, PeriodicEvaluation, RecurrentPPO, evaluate, load_policy

# env = VecNormalize(make_vec_env("CartPole-v1", n_envs=8), norm_obs=True, norm_reward=True)
# model = RecurrentPPO("MlpLstmPolicy", env, seed=0, tensorboard_log="runs",
#     n_steps=128, batch_size=256, n_epochs=10, gamma=0.99, gae_lambda=0.95,
#     learning_rate=lambda remaining: 1e-3 * remaining, clip_range=0.2,
#     ent_coef=0.01, vf_coef=0.5, max_grad_norm=0.5,
#     policy_kwargs=dict(lstm_hidden_size=64, enable_critic_lstm=True, net_arch=[64, 64],
#         optimizer_class=torch.optim.AdamW, optimizer_kwargs=dict(weight_decay=0.01)))
model = RecurrentPPO(
    "CartPole-v1",
    seed=0,
    total_steps=100_000,  # over which schedules run
    run_dir="runs/sb3",
    env={"num_envs": 8},
    normalization={"observation": True, "reward": True},
    logger={"kind": "tensorboard"},
    agent={
        "rollout_steps": 128,
        "minibatches": 4,  # 8 environments x 128 steps / 256; of whole sequences
        "epochs": 10,
        "gamma": 0.99,
        "gae_lambda": 0.95,
        "learning_rate": 1e-3,
        "learning_rate_schedule": lambda progress: 1 - progress,
        "clip": 0.2,
        "entropy_coef": 0.01,
        "entropy_coef_end": 1.0,  # constant; here it would fall in a line to 0
        "log_barrier_coef": 0.0,
        "step_baseline": False,
        "advantage_scale_decay": 0.0,  # advantages are divided by their own deviation alone
        "value_coef": 0.5,
        "max_grad_norm": 0.5,
        "optimizer": "AdamW",
        "optimizer_kwargs": {"weight_decay": 0.01},
    },
    memory={"kind": "lstm", "width": 64},  # or an xLSTM: {"pattern": "ms", "width": 64}
    policy={"critic": "separate", "head_widths": [64, 64], "activation": "tanh"},
)

# best = StopTrainingOnRewardThreshold(475)
# callback = [EvalCallback(eval_env, eval_freq=10_000 // 8, n_eval_episodes=10,
#                          best_model_save_path="runs/best", callback_on_new_best=best),
#             CheckpointCallback(save_freq=50_000 // 8, save_path="runs/checkpoints")]
evaluation = PeriodicEvaluation(10_000, episodes=10, stop_at=475)  # steps of all environments
callbacks = [evaluation, PeriodicCheckpoint(50_000)]

# model.learn(100_000, callback=callback, progress_bar=True)
model.learn(total_steps=100_000, callbacks=callbacks, progress=True)

# model.save("runs/model"); env.save("runs/vecnormalize.pkl")
folder = model.save("runs/sb3")  # with the statistics of the normalisation
model.close()

# model = RecurrentPPO.load("runs/best/best_model")
policy = load_policy(folder)  # load_policy(folder, "best"): the one that evaluated best

# mean, std = evaluate_policy(model, eval_env, n_eval_episodes=20)
result = evaluate(policy, episodes=20, seed=1)
print(f"{result.mean:.1f} +- {result.std:.1f}")

# action, state = model.predict(obs, state, episode_start, deterministic=True)
env, actor = gymnasium.make("CartPole-v1"), policy.actor()
obs, _ = env.reset(seed=0)
start, done, total = True, False, 0.0
while not done:
    action = actor(obs, reset=start)  # the state stays in the actor; policy.act hands it back
    obs, reward, terminated, truncated, _ = env.step(action)
    done, start = terminated or truncated, False
    total += float(reward)
print(f"one more episode: {total:.0f}")
