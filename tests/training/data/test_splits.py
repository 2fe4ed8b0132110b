"""Who is tested on what."""

import numpy as np
import pytest

from training.data.errors import LogError
from training.data.packed_log import PackedLog
from training.data.splits import held_out, unseen_users


def ids(count: int) -> np.ndarray:
    return np.array([f"user {number}" for number in range(count)], dtype=object)


def log_of(*sizes: int) -> PackedLog:
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    rows = np.arange(1, offsets[-1] + 1, dtype=np.int32)
    return PackedLog(rows, offsets, rows.astype(np.float64), ids(len(sizes)))


def test_each_user_is_in_one_part_and_the_parts_have_the_sizes_asked_for() -> None:
    split = unseen_users(ids(1000), test_fraction=0.1)
    assert (len(split.train), len(split.validation), len(split.test)) == (800, 100, 100)
    everyone = np.concatenate([split.train, split.validation, split.test])
    assert sorted(everyone) == list(range(1000))


def test_a_user_is_in_the_same_part_wherever_the_log_has_it() -> None:
    users = ids(500)
    shuffled = np.random.default_rng(0).permutation(users)
    split, again = unseen_users(users, seed=3), unseen_users(shuffled, seed=3)
    assert list(users[split.test]) == list(shuffled[again.test])
    assert list(users[split.validation]) == list(shuffled[again.validation])
    assert list(users[split.train]) == list(shuffled[again.train])


def test_the_seed_decides() -> None:
    first, second = unseen_users(ids(500), seed=0), unseen_users(ids(500), seed=1)
    assert len(set(first.test) & set(second.test)) < 15  # 5 are expected


def test_no_user_of_training_is_tested_when_others_join() -> None:
    few, many = ids(1000), ids(1300)
    before, after = unseen_users(few), unseen_users(many)
    assert not set(few[before.train]) & set(many[after.test])


@pytest.mark.parametrize(("count", "fraction"), [(0, 0.1), (1, 0.1), (4, 0.1), (2, 0.4)])
def test_a_part_without_users_is_refused(count: int, fraction: float) -> None:
    with pytest.raises(LogError, match=rf"{count} users cannot give .* more users"):
        unseen_users(ids(count), fraction)


def test_three_users_can_be_split() -> None:
    split = unseen_users(ids(3), 0.34)
    assert (len(split.train), len(split.validation), len(split.test)) == (1, 1, 1)


@pytest.mark.parametrize("fraction", [0.0, -0.1, 0.5, 1.0, float("nan")])
def test_a_fraction_that_leaves_no_training_is_refused(fraction: float) -> None:
    with pytest.raises(LogError, match=r"above 0 and below 0\.5"):
        unseen_users(ids(100), fraction)


def test_four_fifths_of_a_history_are_shown_and_the_rest_is_asked_for() -> None:
    log = log_of(10, 1, 2, 3, 7)
    cases = held_out(log, np.array([4, 0, 1, 2, 3]))
    assert cases.users.tolist() == [4, 0, 2, 3]
    assert (cases.cuts - cases.starts).tolist() == [5, 8, 1, 2]
    assert (cases.ends - cases.cuts).tolist() == [2, 2, 1, 1]
    assert cases.starts.tolist() == log.offsets[[4, 0, 2, 3]].tolist()
    assert cases.too_short == 1


def test_a_share_is_meant_as_a_decimal_number() -> None:
    cases = held_out(log_of(90, 170), np.array([0, 1]), history_share=0.7)
    assert (cases.cuts - cases.starts).tolist() == [63, 119]


@pytest.mark.parametrize("share", [0.01, 0.99, 0.999999999999])
def test_at_least_one_item_is_shown_and_one_asked_for(share: float) -> None:
    cases = held_out(log_of(2, 3, 50), np.array([0, 1, 2]), share)
    assert np.all(cases.cuts > cases.starts)
    assert np.all(cases.ends > cases.cuts)


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0])
def test_a_share_of_nothing_or_all_is_refused(share: float) -> None:
    with pytest.raises(LogError, match="above 0 and below 1"):
        held_out(log_of(5), np.array([0]), share)
