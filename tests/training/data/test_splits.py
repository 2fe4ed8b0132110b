"""Users in train, validation and test, and the slices of their histories."""

import numpy as np
import pytest

from training.data.errors import LogError
from training.data.packed_log import PackedLog
from training.data.splits import hold_out, split_users


def ids(count: int) -> np.ndarray:
    return np.array([f"user {number}" for number in range(count)], dtype=object)


def log_of(*sizes: int) -> PackedLog:
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    rows = np.arange(1, offsets[-1] + 1, dtype=np.int32)
    return PackedLog(rows, offsets, rows.astype(np.float64), ids(len(sizes)))


def test_each_user_is_in_one_part_and_the_parts_have_the_given_sizes() -> None:
    split = split_users(ids(1000), test_fraction=0.1)
    assert (len(split.train), len(split.validation), len(split.test)) == (800, 100, 100)
    everyone = np.concatenate([split.train, split.validation, split.test])
    assert sorted(everyone) == list(range(1000))


def test_the_order_of_the_users_does_not_matter() -> None:
    users = ids(500)
    shuffled = np.random.default_rng(0).permutation(users)
    split, same = split_users(users, seed=3), split_users(shuffled, seed=3)
    assert list(users[split.test]) == list(shuffled[same.test])
    assert list(users[split.validation]) == list(shuffled[same.validation])
    assert list(users[split.train]) == list(shuffled[same.train])


def test_the_split_depends_on_the_seed() -> None:
    first, second = split_users(ids(500), seed=0), split_users(ids(500), seed=1)
    assert len(set(first.test) & set(second.test)) < 15  # 5 are expected


def test_no_training_user_moves_to_test_when_users_are_added() -> None:
    fewer, more = ids(1000), ids(1300)
    before, after = split_users(fewer), split_users(more)
    assert not set(fewer[before.train]) & set(more[after.test])


@pytest.mark.parametrize(("count", "fraction"), [(0, 0.1), (1, 0.1), (4, 0.1), (2, 0.4)])
def test_an_empty_part_is_rejected(count: int, fraction: float) -> None:
    with pytest.raises(LogError, match=rf"{count} users cannot give .* more users"):
        split_users(ids(count), fraction)


def test_three_users_can_be_split() -> None:
    split = split_users(ids(3), 0.34)
    assert (len(split.train), len(split.validation), len(split.test)) == (1, 1, 1)


@pytest.mark.parametrize("fraction", [0.0, -0.1, 0.5, 1.0, float("nan")])
def test_a_fraction_that_leaves_no_training_users_is_rejected(fraction: float) -> None:
    with pytest.raises(LogError, match=r"above 0 and below 0\.5"):
        split_users(ids(100), fraction)


def test_the_first_four_fifths_are_history_and_the_rest_is_held_out() -> None:
    log = log_of(10, 1, 2, 3, 7)
    cases = hold_out(log, np.array([4, 0, 1, 2, 3]))
    assert cases.users.tolist() == [4, 0, 2, 3]
    assert (cases.cuts - cases.starts).tolist() == [5, 8, 1, 2]
    assert (cases.ends - cases.cuts).tolist() == [2, 2, 1, 1]
    assert cases.starts.tolist() == log.offsets[[4, 0, 2, 3]].tolist()
    assert cases.too_short == 1


def test_the_share_is_a_decimal_number() -> None:
    cases = hold_out(log_of(90, 170), np.array([0, 1]), history_share=0.7)
    assert (cases.cuts - cases.starts).tolist() == [63, 119]


@pytest.mark.parametrize("share", [0.01, 0.99, 0.999999999999])
def test_at_least_one_item_is_history_and_one_is_held_out(share: float) -> None:
    cases = hold_out(log_of(2, 3, 50), np.array([0, 1, 2]), share)
    assert np.all(cases.cuts > cases.starts)
    assert np.all(cases.ends > cases.cuts)


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0])
def test_a_share_of_nothing_or_all_is_rejected(share: float) -> None:
    with pytest.raises(LogError, match="above 0 and below 1"):
        hold_out(log_of(5), np.array([0]), share)
