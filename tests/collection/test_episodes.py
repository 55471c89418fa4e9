import numpy as np

from xlstm_rl.collection.episodes import EpisodeCounter


def _flags(*rows: str) -> np.ndarray:
    return np.array([[c == "x" for c in row] for row in rows])


def test_episodes_are_summed_up_across_rollouts_in_the_order_of_their_ends() -> None:
    counter = EpisodeCounter(2)
    reward = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0], [4.0, 40.0]])
    ended, dead = _flags("..", "x.", "xx", ".."), np.zeros((4, 2), dtype=bool)
    # the first environment: steps 0 and 1, then 2; the second: 0 to 2
    assert counter.count(reward, ended, dead) == ([3.0, 3.0, 60.0], [2, 1, 3], [])
    # both went on with step 3
    assert counter.count(reward, _flags("..", "..", ".x", "x."), dead) == (
        [100.0, 14.0],
        [4, 5],
        [],
    )


def test_a_dead_step_does_not_count() -> None:
    counter = EpisodeCounter(1)
    reward = np.array([[1.0], [0.0], [5.0], [6.0]])
    found = counter.count(reward, _flags("x", ".", ".", "x"), _flags(".", "x", ".", "."))
    assert found == ([1.0, 11.0], [1, 2], [])


def test_an_episode_that_broke_is_left_out_and_the_next_one_starts_from_zero() -> None:
    counter = EpisodeCounter(1)
    reward = np.array([[1.0], [2.0], [4.0], [8.0]])
    found = counter.count(reward, _flags(".", "x", ".", "x"), _flags("x", "x", ".", "."))
    assert found == ([12.0], [2], [])


def test_successes_are_those_that_were_said_at_the_ends_of_whole_episodes() -> None:
    counter = EpisodeCounter(2)
    ended, broken = _flags("x.", "xx", "xx"), _flags("..", "x.", "..")
    success = np.array([[1.0, np.nan], [1.0, np.nan], [0.0, 0.5]])
    found = counter.count(np.zeros((3, 2)), ended, broken, success)
    assert found[2] == [1.0, 0.0, 0.5]
