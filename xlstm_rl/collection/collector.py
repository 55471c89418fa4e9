"""Collects rollouts `[B, T]` from a vector environment with a recurrent policy."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from gymnasium.vector import VectorEnv
from torch import Tensor

from xlstm_rl.collection.acting import make_actor_step
from xlstm_rl.collection.env_adapter import RawObservation, Transition
from xlstm_rl.collection.episodes import EpisodeCounter
from xlstm_rl.collection.finite import FinalNumbers, FiniteCheck
from xlstm_rl.collection.infos import SUCCESS
from xlstm_rl.collection.insertion import FinalInput
from xlstm_rl.collection.keywords import KeywordCheck
from xlstm_rl.collection.masks import mask_infos, read_masks, tell_of_unread_masks
from xlstm_rl.collection.rollout import Rollout as Rollout
from xlstm_rl.collection.rollout_buffer import RolloutBuffer, batch_first
from xlstm_rl.collection.tensor_adapter import make_env_adapter
from xlstm_rl.collection.values import Collected, make_critic
from xlstm_rl.envs.snapshots.as_made import values_as_made
from xlstm_rl.errors import EnvError
from xlstm_rl.memory import StateTensors
from xlstm_rl.normalization import Observation
from xlstm_rl.policy.policy import Policy
from xlstm_rl.profiling import NO_PROFILE, Profile


class Collector:
    """Steps a policy through a vector environment, carrying its memory from rollout to rollout.

    Each stored step is evaluated with the statistics, weights and memory state it was acted with,
    so the stored log-probabilities are those of the policy that acted. Values are computed when
    the rollout is there, with the same weights and statistics.

    A rollout that was cut off by an interrupt or an error is lost. The next one begins new
    episodes, with a fresh memory; the environments' random numbers go on.

    With an environment that answers tensors (`tensors = True`) they stay on the device, and no step
    waits for it.

    Raises:
        ConfigError: the environment answers tensors, and the policy reads action masks.
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        policy: Policy,
        rollout_steps: int,
        segment_steps: int,
        seed: int | list[int],
        generator: torch.Generator,
        info_keywords: Sequence[str] = (),
    ) -> None:
        self.policy = policy
        self.rollout_steps = rollout_steps
        self.segment_steps = segment_steps
        self.generator = generator
        self.steps_done = 0
        self.on_step: Callable[[], None] | None = None
        """Called before each step, as to take over newer weights."""
        self.is_cut_off = False
        """Whether the last rollout was cut off: the next one then begins new episodes."""
        self.env = env
        self._adapter = make_env_adapter(env, policy)
        self._adapter.keywords = tuple(info_keywords)
        self._keyword_check = KeywordCheck(info_keywords)
        self._num_envs = env.num_envs
        # held, because a module looks its parts up in a dict at every access
        self._auxiliary, self._normalizer = policy.auxiliary, policy.normalizer
        self._critic = make_critic(policy.network)
        self._act = make_actor_step(policy.network, policy.device)
        self._looks_for_masks = not policy.auxiliary.reads_mask
        self.env_as_made = values_as_made(env)
        """What tells the environments from others, where a run goes on with them."""
        self._begin(seed)

    def _begin(self, seed: int | list[int] | None) -> None:
        """Begin an episode in every environment, with nothing left of those before."""
        policy, adapter, rows = self.policy, self._adapter, self._num_envs
        self.is_cut_off = True  # until a whole rollout is there
        self._episodes = EpisodeCounter(rows)
        self._tensors = policy.network.initial_tensors(rows, policy.device, critic=False)
        self._critic.begin(rows, policy.device)
        self._auxiliary_tensors = policy.auxiliary.initial_tensors(rows, policy.device)
        adapter.steps = self.steps_done
        self._observation = adapter.reset(seed)
        self._infos = [adapter.first_info]
        self._reset, self._autoreset = adapter.flags(True), adapter.flags(False)
        self._reward: Tensor | None = None
        self.is_cut_off = False

    def carried(self) -> dict[str, Any]:
        """Return what is carried from rollout to rollout, beside the environments' own state."""
        return {
            "steps_done": self.steps_done,
            "tensors": self._tensors,
            "critic": self._critic.state,
            "auxiliary": self._auxiliary_tensors,
            "observation": self._observation,
            "masks": mask_infos(self.policy, self._infos),
            "flags": (self._reset, self._autoreset, self._adapter.ended),
            "reward": self._reward,
            "episodes": self._episodes.state(),
        }

    def carry_on(self, carried: dict[str, Any]) -> None:
        """Go on from what `carried` returned in another process; the environments stand there."""
        device = self.policy.device
        self.steps_done = self._adapter.steps = carried["steps_done"]
        self._tensors = tuple(one.to(device) for one in carried["tensors"])
        self._critic.state = tuple(one.to(device) for one in carried["critic"])
        self._auxiliary_tensors = tuple(one.to(device) for one in carried["auxiliary"])
        self._observation, self._infos = carried["observation"], carried["masks"]
        self._reset, self._autoreset, self._adapter.ended = carried["flags"]
        self._reward = carried["reward"]
        self._episodes.load_state(carried["episodes"])

    @torch.no_grad()
    def collect(self, profile: Profile = NO_PROFILE) -> Rollout:
        """Collect `rollout_steps` steps of every environment.

        Args:
            profile: where the time is counted.

        Raises:
            TrainingError: an observation or a reward is not finite, or a mask allows no action.
        """
        if self.is_cut_off:
            self._begin(None)
        self.is_cut_off = True
        buffer = RolloutBuffer(self.policy, self._adapter, self.rollout_steps, self._num_envs)
        segment_states: list[StateTensors] = []
        finals: list[FinalNumbers] = []
        self._without_final: list[int] = []
        self._critic.begin_rollout(self.rollout_steps)
        for t in range(self.rollout_steps):
            if t % self.segment_steps == 0:
                # copied, because no gradient may flow through what inference mode has made
                segment_states.append(tuple(tensor.clone() for tensor in self._tensors))
            if self.on_step is not None:
                self.on_step()
            self._step(t, buffer, finals, profile)
        with profile.part("values"):
            rollout = self._finish(buffer, finals, segment_states)
        self.steps_done += self.rollout_steps * self._num_envs
        self.is_cut_off = False
        return rollout

    def _finish(
        self, buffer: RolloutBuffer, finals: list[FinalNumbers], segment_states: list[StateTensors]
    ) -> Rollout:
        """Check what was collected, and value it."""
        network, adapter = self.policy.network, self._adapter
        reward, flags = adapter.on_host(buffer.reward), buffer.flags
        truncated = adapter.on_host(flags["truncated"])
        ended = adapter.on_host(flags["terminated"]) | truncated
        success = None if buffer.success is None else adapter.on_host(buffer.success)
        episodes = self._episodes.count(reward, ended, adapter.on_host(flags["invalid"]), success)
        adapter.check()
        self._refuse_missing_finals(flags["truncated"])
        buffer.to_device()
        check = FiniteCheck(self.steps_done, self._num_envs)
        check.rewards(buffer.reward)
        check.observations(buffer.raw, 0)
        check.finals(finals)
        numbers, x, reset = self._network_input(self.rollout_steps)
        check.observations(numbers, self.rollout_steps)
        collected = Collected(buffer.observation, buffer.flags["reset"], truncated, x, reset)
        values = self._critic.evaluate(collected, self._tensors, self.segment_steps)
        states = zip(segment_states, values.segment_states, strict=True)
        return Rollout(
            buffer.to_tensordict(network.distribution, values),
            [actor + critic for actor, critic in states],
            batch_first(buffer.raw, self._num_envs, self.rollout_steps),
            *episodes,
            self._episodes.ends,
            self._said(buffer, success),
        )

    def _said(self, buffer: RolloutBuffer, success: Any) -> dict[str, list[float]]:
        """Return what the episodes that ended said, by key."""
        found = {} if success is None else {SUCCESS: success}
        found |= {key: self._adapter.on_host(values) for key, values in buffer.said.items()}
        ends = self._episodes.ends
        said = {key: [float(values[end]) for end in ends] for key, values in found.items()}
        self._keyword_check.look(said, len(ends), self._adapter.keys_at_end)
        return said

    def _step(
        self, t: int, buffer: RolloutBuffer, finals: list[FinalNumbers], profile: Profile
    ) -> None:
        """Act once, and write down what was seen, done and answered."""
        auxiliary, adapter = self._auxiliary, self._adapter
        distribution = self.policy.network.distribution
        with profile.part("acting"):
            with torch.inference_mode():  # a tenth of a step's time: nothing is tracked
                raw, x, reset = self._network_input(t)
                params, features, self._tensors = self._act(x, self._tensors, reset)
                action = self._explored(t, params, features)
                if self._auxiliary_tensors:
                    self._auxiliary_tensors = auxiliary.after(self._auxiliary_tensors, action)
            chosen = adapter.actions(distribution.to_env(action))
        with profile.part("storage"):
            self._critic.see(t, features)
            buffer.write_action(t, raw, x, params, action, self._reset, self._autoreset)
        with profile.part("environment"):
            transition = adapter.step(chosen)
        with profile.part("storage"):
            self._take(t, buffer, transition, finals)

    def _explored(self, t: int, params: Tensor, features: Tensor) -> Tensor:
        """Return sampled actions `[B, ...]`; noise that stays a while is drawn anew in its turn."""
        network, distribution = self.policy.network, self.policy.network.distribution
        if network.exploration is None:
            return distribution.sample(params, self.generator)
        every = distribution.resample_steps or self.rollout_steps
        if t % every == 0:
            self._noise = network.exploration.draw(self._num_envs, self.generator)
        return distribution.mode(params) + network.exploration.noise(features, self._noise)

    def _take(
        self, t: int, buffer: RolloutBuffer, transition: Transition, finals: list[FinalNumbers]
    ) -> None:
        """Write down what the environments answered, and what the next step begins with."""
        auxiliary, adapter = self._auxiliary, self._adapter
        buffer.write_outcome(t, transition)
        if auxiliary.reads_reward:
            self._reward = adapter.tensor(transition.reward).float()
        if transition.final_observation is not None:
            rows = transition.final_rows
            numbers, x = self._final_input(rows, transition.final_observation)
            self._critic.see_final(FinalInput(t, rows, x), self._tensors)
            finals.append((t + 1, rows, numbers))
        if transition.lacks_final:
            self._without_final.append(t)
        if transition.broken is not None:
            buffer.drop_episodes(t, transition.broken)
        self._observation, self._infos = transition.observation, transition.infos
        if self._looks_for_masks:
            self._looks_for_masks = not tell_of_unread_masks(self.policy, transition.infos)
        self._reset, self._autoreset = transition.reset, transition.autoreset

    def _network_input(self, t: int) -> tuple[Observation, Observation, Tensor | None]:
        """Return the numbers that are normalised, all that the network reads, and the resets."""
        numbers, x = self._normalized(self._observation)
        reset, auxiliary = self._adapter.resets(self._reset), self._auxiliary
        if auxiliary.is_active:
            mask = self._mask(t) if auxiliary.reads_mask else None
            x = auxiliary.join(x, self._auxiliary_tensors, reset, self._reward, mask)
        return numbers, x, reset

    def _normalized(self, observation: RawObservation) -> tuple[Observation, Observation]:
        normalizer: Any = self._normalizer
        tensor = self._adapter.tensor
        if isinstance(observation, dict):
            raw: Any = {name: tensor(part) for name, part in observation.items()}
        else:
            raw = tensor(observation)
        flat = normalizer.flatten(raw)
        return normalizer.numbers(flat), normalizer.normalize(flat)

    def _mask(self, t: int) -> Tensor:
        step = self.steps_done + t * self._num_envs
        flags = read_masks(
            self.policy,
            self._observation,
            self._infos,
            self._autoreset,
            lambda row: f"environment {row} at step {step}",
        )
        return self._adapter.tensor(flags)

    def _final_input(
        self, rows: Tensor | slice, observation: RawObservation
    ) -> tuple[Observation, Observation]:
        """Return the numbers of final observations, and what the critic reads of them."""
        numbers, x = self._normalized(observation)
        auxiliary = self._auxiliary
        if auxiliary.is_active:  # no mask: no value depends on what could be done
            own = tuple(tensor[rows] for tensor in self._auxiliary_tensors)
            reward = None if self._reward is None else self._reward[rows]
            x = auxiliary.join(x, own, None, reward, None)
        return numbers, x

    def _refuse_missing_finals(self, truncated: Any) -> None:
        """Refuse truncated episodes without a final observation, where no step asked for it."""
        if not self._without_final:
            return
        missing = truncated[self._without_final]
        if missing.any():  # one look for all of them
            place, row = (int(i) for i in missing.nonzero()[0])
            t = self._without_final[place]
            raise EnvError(
                f"step {self.steps_done + t * self._num_envs}: info has no 'final_obs', the last "
                f"observation of the truncated environment {row}: where autoreset_mode is "
                "SAME_STEP, put it there, or set may_truncate = False"
            )
