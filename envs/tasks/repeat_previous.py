"""RepeatPrevious: name the suit of the card that was dealt some steps ago.

Source: Morad et al., POPGym: Benchmarking Partially Observable Reinforcement Learning, 2023
(arXiv:2303.01859), and its code.
"""

from __future__ import annotations

from typing import Any

from gymnasium import spaces
from typing_extensions import Unpack

from xlstm_rl.envs.arguments import check_whole
from xlstm_rl.envs.tasks.drawing import COLOURS, Image, cells_of, dim
from xlstm_rl.envs.tasks.task import SingleTask, TaskOptions, TaskVectorEnv
from xlstm_rl.envs.tasks.values import Values

_SUITS = 4
_CARDS = 52


class RepeatPreviousVectorEnv(TaskVectorEnv):
    """Deal `decks` shuffled decks of 52 cards one by one, ask for the suit dealt `k` steps ago.

    Observation: the suit in sight, 0 to 3. Action: the suit `k` steps before it. With n = 52 decks
    the episode has n - 1 steps, the last n - 1 - k of which are answers; each brings
    1 / (n - 1 - k) if it is right and the same less if it is wrong.

    Step for step POPGym's task of that name, which counts the card in sight as the first: its
    k = 4, 32 and 64 (easy, medium and hard, with 1, 2 and 3 decks) are 3, 31 and 63 here. The
    episode terminates, where POPGym calls its end a truncation.

    The optimal policy returns 1 in every episode. The best one without memory returns
    26 decks / (n - 1) - 1 (-0.490 for one deck), a little more than by chance: it names a suit
    other than the one in sight, of which one card less is left.

    Args:
        num_envs: Number of environments, `B`.
        k: Steps back.
        decks: Number of decks, shuffled as one.
        options: Those of every task: `TaskOptions`.

    Raises:
        ValueError: `k` or `decks` is not an integer >= 1, or there are too few cards.
    """

    def __init__(
        self, num_envs: int = 1, *, k: int = 3, decks: int = 1, **options: Unpack[TaskOptions]
    ) -> None:
        k, decks = check_whole("RepeatPrevious", k=k, decks=decks)
        self.num_cards = _CARDS * decks
        if k > self.num_cards - 2:
            raise ValueError(
                f"k of RepeatPrevious is {k}, expected at most {self.num_cards - 2} with "
                f"decks={decks}, so that there is something to repeat"
            )
        super().__init__(num_envs, spaces.Discrete(_SUITS), spaces.Discrete(_SUITS), **options)
        self.k = k
        self.episode_steps = self.num_cards - 1
        self.suits = self.zeros(self.num_envs, self.num_cards)
        """The suits in the order in which they are dealt, `[B, 52 decks]`."""
        self._reward = 1.0 / (self.num_cards - 1 - k)

    @property
    def optimal_return(self) -> float:
        """The mean return of the best policy."""
        return 1.0

    @property
    def memoryless_return(self) -> float:
        """The mean return of the best policy that sees the present observation alone."""
        return 2 * (self.num_cards // _SUITS) / (self.num_cards - 1) - 1

    def _begin(self, rows: Values, options: dict[str, Any]) -> None:
        self.suits[rows] = self.draw_orders(len(rows), self.num_cards) % _SUITS

    def _advance(self, actions: Values) -> tuple[Values, Values]:
        asked = self.elapsed > self.k
        right = actions == self._dealt((self.elapsed - 1 - self.k).clip(0))
        return (2.0 * right - 1.0) * asked * self._reward, self.elapsed >= self.episode_steps

    def _observe(self) -> Values:
        return self._dealt(self.elapsed)

    def _dealt(self, time: Values) -> Values:
        return self.suits[self.every, time]

    @property
    def longest_episode(self) -> int:
        """The most steps that an episode can have."""
        return self.num_cards - 1

    def _cells(self, row: int) -> Image:
        """The last `k + 1` cards; the one in sight is the last, the one asked for the first."""
        cells, now = cells_of(self.k + 1), int(self.elapsed[row])
        for place, time in enumerate(range(now - self.k, now + 1)):
            if time >= 0:
                colour = COLOURS[int(self.suits[row, time])]
                cells.reshape(-1, 3)[place] = colour if time == now else dim(colour)
        return cells


class RepeatPrevious(SingleTask):
    """One RepeatPrevious, with the arguments `k` and `decks`: see `RepeatPreviousVectorEnv`."""

    vector_form = RepeatPreviousVectorEnv
