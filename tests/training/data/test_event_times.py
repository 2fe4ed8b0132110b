"""A log's times: in training, in evaluation and in a request they have the same codes."""

from dataclasses import replace

import numpy as np
import pytest

from index.retrieval.padding import pad_gaps
from training.data.array_store import BLOCK
from training.data.event_times import Clock, gaps_of
from training.data.examples import Positions, open_stream
from training.data.packed_log import PackedLog

START = 1.7e9


def random_log(users: int = 40, scale: float = 1.0) -> PackedLog:
    """Each row once, so that it tells the interaction."""
    random = np.random.default_rng(0)
    sizes = random.integers(1, 15, users)
    times = [np.sort(START + random.lognormal(9, 4, size).round(3)) for size in sizes]
    total = int(sizes.sum())
    return PackedLog(
        rows=np.arange(1, total + 1, dtype=np.int32),
        offsets=np.append(0, np.cumsum(sizes)),
        times=np.concatenate(times) * scale,
        user_ids=np.array([f"u{n}" for n in range(users)], dtype=object),
    )


@pytest.mark.parametrize("positions", ["last", "all"])
@pytest.mark.parametrize("length", [3, 50])
@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_a_history_has_in_training_the_gaps_that_it_has_in_a_request(
    positions: Positions, length: int, scale: float
) -> None:
    log = random_log(scale=scale)
    clock, users = Clock(log.times), log.offsets.searchsorted(np.arange(len(log.rows)), "right") - 1
    checked = 0
    for batch in open_stream(positions, log, length, 16, seed=0, with_gaps=True).epoch(0):
        assert batch.gaps is not None
        targets = batch.targets if positions == "all" else batch.targets[:, None]
        for rows, gaps, after in zip(batch.rows, batch.gaps, targets, strict=True):
            for end in after.nonzero().flatten().tolist():
                target = int(after[end]) - 1
                seen = rows[: end + 1] if positions == "all" else rows
                known = gaps[: len(seen)][seen > 0].tolist()
                ages = clock.ages(target - len(known), target)
                assert target - len(known) >= log.offsets[users[target]]
                assert pad_gaps([ages], len(known)).tolist() == [known]
                checked += 1
    assert checked == int(log.is_target.sum())


def test_examples_have_no_gaps_unless_they_are_wanted() -> None:
    log = random_log()
    for positions in ("last", "all"):
        assert all(b.gaps is None for b in open_stream(positions, log, 5, 16, seed=0).epoch(0))


def test_gaps_of_a_log_in_several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    log = random_log()
    expected = gaps_of(log)
    assert len(log.rows) < BLOCK
    monkeypatch.setattr("training.data.array_store.BLOCK", 7)
    assert gaps_of(log).tolist() == expected.tolist()
    assert (expected[log.offsets[1:] - 1] == 0).all()


def test_positions_are_no_times() -> None:
    log = replace(random_log(), times=np.arange(len(random_log().rows), dtype=np.float64))
    assert not gaps_of(log).any()
    assert Clock(log.times).ages(0, 3) is None


def test_ages_are_seconds_whatever_the_log_s_unit() -> None:
    for per_second in (1, 1e3, 1e6):
        clock = Clock(np.array([START, START + 60, START + 90]) * per_second)
        assert clock.ages(0, 2) == pytest.approx([90, 30], abs=1e-3)
        assert clock.ages(0, 1, (START + 100) * per_second) == pytest.approx([100], abs=1e-3)
