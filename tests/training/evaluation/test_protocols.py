"""Protocols: what is trained on, and that cases are kept apart from it."""

from dataclasses import replace

import numpy as np
import pytest

from training.data.errors import LogError
from training.data.packed_log import PackedLog
from training.evaluation.protocols import split_log

HISTORIES = [[1, 2, 3, 4], [5, 6], [3, 1, 2], [4, 5, 6, 1, 2, 3], [2, 2, 5, 1]]


def log_of(histories: list[list[int]] = HISTORIES) -> PackedLog:
    flat = [row for history in histories for row in history]
    return PackedLog(
        rows=np.array(flat, dtype=np.int32),
        offsets=np.cumsum([0, *map(len, histories)]),
        times=np.concatenate([np.arange(len(history)) * 10.0 for history in histories]),
        user_ids=np.array([f"u{n}" for n in range(len(histories))], dtype=object),
    )


def histories_of(log: PackedLog) -> dict[str, list[int]]:
    return {
        str(user): log.rows[start:end].tolist()
        for user, start, end in zip(log.user_ids, log.offsets, log.offsets[1:], strict=False)
    }


def test_leave_one_out():
    split = split_log("leave-one-out", log_of(), 6, 0.1, seed=0)
    assert histories_of(split.train) == {
        "u0": [1, 2],
        "u1": [5, 6],
        "u2": [3],
        "u3": [4, 5, 6, 1],
        "u4": [2, 2],
    }
    assert {tuple(case.history): case.relevant for case in split.validation} == {
        (1, 2): [3],
        (3,): [1],
        (4, 5, 6, 1): [2],
        (2, 2): [5],
    }
    assert {tuple(case.history): case.relevant for case in split.test} == {
        (1, 2, 3): [4],
        (3, 1): [2],
        (4, 5, 6, 1, 2): [3],
        (2, 2, 5): [1],
    }


def test_sampled_99_ranks_the_target_among_items_the_user_never_interacted_with():
    log = log_of([list(range(1, 8)), list(range(3, 9))])
    split = split_log("sampled-99", log, 300, 0.1, seed=0)
    for case in (*split.validation, *split.test):
        assert case.candidates is not None
        assert case.candidates[:1] == case.relevant
        assert len(set(case.candidates)) == 100
        assert not set(case.candidates[1:]) & {*case.history, *case.relevant}
    assert split_log("sampled-99", log, 300, 0.1, seed=0).test == split.test


def test_sampled_99_takes_all_other_items_of_a_small_catalogue():
    split = split_log("sampled-99", log_of([list(range(1, 8)), list(range(3, 9))]), 100, 0.1, 0)
    assert {len(case.candidates or ()) for case in split.test} == {100 - 6, 100 - 5}


def test_temporal_trains_only_on_the_past():
    split = split_log("temporal", log_of(), 6, 0.2, seed=0)
    # times are 0, 10, 20, ... within each user; a fifth of the interactions is after 30 or so
    assert max(map(len, histories_of(split.train).values())) < 6
    for case in split.test:
        assert case.history
        assert case.relevant
    relevant_by_history = {tuple(case.history): case.relevant for case in split.test}
    by_user = {tuple(history): history for history in HISTORIES}
    for history, relevant in relevant_by_history.items():
        assert any(
            whole[: len(history)] == list(history) and whole[len(history) :] == relevant
            for whole in by_user.values()
        )


def test_unseen_users_are_not_trained_on():
    histories = [[n % 6 + 1, (n + 1) % 6 + 1, (n + 2) % 6 + 1] for n in range(40)]
    split = split_log("unseen-users", log_of(histories), 6, 0.1, seed=0)
    assert (len(split.train), len(split.validation), len(split.test)) == (32, 4, 4)


@pytest.mark.parametrize("name", ["leave-one-out", "sampled-99", "temporal"])
def test_a_log_with_nothing_to_evaluate_on_is_rejected(name):
    with pytest.raises(LogError, match="leave nothing to train on"):
        split_log(name, log_of([[1], [2], [3]]), 3, 0.1, seed=0)


@pytest.mark.parametrize("name", ["unseen-users", "temporal"])
def test_a_held_out_item_is_held_out_once(name):
    log = log_of([[1, 2, 3, 4, 5, 6, 7, 8, 1, 1]] * 10)
    split = split_log(name, log, 8, 0.2, seed=0)
    assert split.test
    assert all(case.relevant == [1] for case in split.test)


def test_what_has_weight_0_is_in_histories_and_not_to_be_found() -> None:
    log = log_of()
    weights = np.ones(len(log.rows), dtype=np.float32)
    weights[log.rows == 2] = 0
    plain = split_log("leave-one-out", log, 6, 0.1, seed=0)
    split = split_log("leave-one-out", replace(log, weights=weights), 6, 0.1, seed=0)
    assert histories_of(split.train) == histories_of(plain.train)
    assert split.test == [case for case in plain.test if case.relevant != [2]]
    assert split.validation == [case for case in plain.validation if case.relevant != [2]]
    assert 2 in {row for case in split.test for row in case.history}


def test_an_item_is_to_be_found_if_one_of_its_interactions_is() -> None:
    log = log_of([[1, 2, 3, 4, 2, 4]] * 30)
    log = replace(log, weights=np.tile(np.array([1, 1, 1, 0.1, 0, 0.5], np.float32), 30))
    assert log.held_out(1, 5) == [2, 3, 4]
    assert log.held_out(3, 6) == [4]
    assert log.held_out(4, 5) == []
    split = split_log("temporal", log, 4, 0.25, seed=0)
    cases = {(tuple(case.history), tuple(case.relevant)) for case in split.test}
    assert cases == {((1, 2, 3, 4), (4,))}
