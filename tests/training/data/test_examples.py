"""Examples: each item but a user's first, once an epoch, with the items before it as history."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from training.data.examples import Examples, ExampleStream, Positions, SequenceStream, open_stream
from training.data.packed_log import PackedLog


def log_of(histories: list[list[int]]) -> PackedLog:
    flat = [row for history in histories for row in history]
    return PackedLog(
        rows=np.array(flat, dtype=np.int32),
        offsets=np.cumsum([0, *map(len, histories)]),
        times=np.arange(len(flat), dtype=np.float64),
        user_ids=np.array([f"u{n}" for n in range(len(histories))], dtype=object),
    )


def examples_of(stream: ExampleStream, epoch: int, first: int = 0) -> list[tuple[list[int], int]]:
    return [
        (rows[rows > 0].tolist(), int(target))
        for batch in stream.epoch(epoch, first)
        for rows, target in zip(batch.rows, batch.targets, strict=True)
    ]


def test_each_item_but_the_first_is_a_target_once_an_epoch():
    stream = ExampleStream(log_of([[1, 2, 3], [4], [5, 6]]), length=10, batch_size=2, seed=0)
    expected = [([1], 2), ([1, 2], 3), ([5], 6)]
    assert len(stream) == 3
    assert stream.batches == 2
    assert sorted(examples_of(stream, 0)) == expected
    assert sorted(examples_of(stream, 1)) == expected


def test_targets_since_a_time_keep_the_histories_before_it():
    stream = ExampleStream(log_of([[1, 2, 3], [4], [5, 6]]), 10, None, seed=0, since=2.0)
    assert sorted(examples_of(stream, 0)) == [([1, 2], 3), ([5], 6)]


def test_histories_are_cut_to_the_newest_and_padded_on_the_left():
    stream = ExampleStream(log_of([[1, 2, 3, 4, 5]]), length=3, batch_size=8, seed=0)
    (batch,) = stream.epoch(0)
    by_target = dict(zip(batch.targets.tolist(), batch.rows.tolist(), strict=True))
    assert by_target == {2: [0, 0, 1], 3: [0, 1, 2], 4: [1, 2, 3], 5: [2, 3, 4]}


def test_the_order_depends_only_on_seed_and_epoch_and_an_epoch_can_be_resumed():
    log = log_of([list(range(1, 40))])
    stream, same = (ExampleStream(log, 5, 4, seed=7) for _ in range(2))
    other_seed = ExampleStream(log, 5, 4, seed=8)
    assert examples_of(stream, 2) == examples_of(same, 2)
    assert examples_of(stream, 2) != examples_of(stream, 3)
    assert examples_of(stream, 2) != examples_of(other_seed, 2)
    assert examples_of(stream, 2, first=3) == examples_of(stream, 2)[12:]


def test_log_and_stream_take_at_most_16_bytes_an_interaction():
    users, length = 200, 50
    log = log_of([list(range(1, length + 1))] * users)
    stream = ExampleStream(log, 20, 128, seed=0)
    n = users * length
    nbytes = log.rows.nbytes + log.times.nbytes + log.offsets.nbytes + stream.nbytes
    assert nbytes <= 16 * n + 8 * (users + 1)


def positions_of(stream: SequenceStream, epoch: int, first: int = 0) -> list[tuple[list[int], int]]:
    """History and target of every position that has a target."""
    return [
        (rows[: end + 1][rows[: end + 1] > 0].tolist(), int(targets[end]))
        for batch in stream.epoch(epoch, first)
        for rows, targets in zip(batch.rows, batch.targets, strict=True)
        for end in targets.nonzero().flatten()
    ]


def test_sequences_have_the_same_examples():
    log = log_of([[1, 2, 3], [4], [5, 6], [7, 8, 9, 10]])
    examples, sequences = ExampleStream(log, 10, 2, 0), SequenceStream(log, 10, 2, 0)
    assert len(sequences) == len(examples) == 6
    for epoch in range(3):
        assert sorted(positions_of(sequences, epoch)) == sorted(examples_of(examples, epoch))


def test_long_histories_are_cut_into_sequences_from_the_newest_backwards():
    sequences = SequenceStream(log_of([[1, 2, 3, 4, 5, 6, 7]]), length=4, batch_size=8, seed=0)
    assert sorted(positions_of(sequences, 0)) == [
        ([1], 2),
        ([1, 2], 3),
        ([3], 4),
        ([3, 4], 5),
        ([3, 4, 5], 6),
        ([3, 4, 5, 6], 7),
    ]


def test_sequences_since_a_time_keep_the_histories_before_it():
    stream = SequenceStream(log_of([[1, 2, 3], [4], [5, 6]]), 10, None, seed=0, since=2.0)
    assert len(stream) == 2
    assert sorted(positions_of(stream, 0)) == [([1, 2], 3), ([5], 6)]


def test_batches_of_sequences_are_about_as_large_as_asked_with_little_padding():
    random = np.random.default_rng(0)
    log = log_of([[1] * int(n) for n in random.integers(2, 60, 400)])
    stream = SequenceStream(log, 50, 200, seed=0)
    batches = [*stream.epoch(0)]
    sizes = np.array([batch.size for batch in batches])
    assert sizes.sum() == len(stream)
    assert len(batches) <= stream.batches
    assert sizes.max() < 200 + 50
    assert sum(batch.rows.numel() for batch in batches) < 1.2 * len(stream)


def test_an_epoch_of_sequences_depends_only_on_seed_and_epoch_and_can_be_resumed():
    log = log_of([[*range(1, 4 + n)] for n in range(30)])
    stream, same = (SequenceStream(log, 5, 16, seed=7) for _ in range(2))
    whole = positions_of(stream, 2)
    assert positions_of(same, 2) == whole
    assert positions_of(SequenceStream(log, 5, 16, seed=8), 2) != whole
    done = sum(batch.size for batch, _ in zip(stream.epoch(2), range(3), strict=False))
    assert positions_of(stream, 2, first=3) == whole[done:]


def weights_by_target(batch: Examples) -> list[tuple[int, float]]:
    assert batch.weights is not None
    assert batch.weights.dtype == torch.float32
    assert batch.weights.shape == batch.targets.shape
    targets = batch.targets > 0
    return [*zip(batch.targets[targets].tolist(), batch.weights[targets].tolist(), strict=True)]


@pytest.mark.parametrize("positions", ["last", "all"])
@pytest.mark.parametrize("length", [2, 10])
def test_targets_have_their_weights_and_those_of_weight_0_are_in_histories_alone(
    positions: Positions, length: int
) -> None:
    """Each item has its own number as its weight, but 3 and 8 have none."""
    log = log_of([[1, 2, 3, 4, 5], [6, 7], [9, 8, 11, 10]])
    weights = np.where(np.isin(log.rows, [3, 8]), 0, log.rows).astype(np.float32)
    stream = open_stream(positions, replace(log, weights=weights), length, 3, seed=0)
    assert len(stream) == 6
    batches = [*stream.epoch(0)]
    assert sum(batch.size for batch in batches) == 6
    seen = sorted(pair for batch in batches for pair in weights_by_target(batch))
    assert seen == [(row, float(row)) for row in (2, 4, 5, 7, 10, 11)]
    assert {3, 8} <= {row for batch in batches for row in batch.rows.flatten().tolist()}


@pytest.mark.parametrize("positions", ["last", "all"])
def test_weights_above_0_change_no_batch(positions: Positions) -> None:
    log = log_of([[*range(1, 4 + n)] for n in range(30)])
    weights = np.linspace(0.1, 3, len(log.rows), dtype=np.float32)
    plain, weighted = (
        open_stream(positions, each, 5, 16, seed=7) for each in (log, replace(log, weights=weights))
    )
    for batch, other in zip(plain.epoch(1), weighted.epoch(1), strict=True):
        assert batch.weights is None
        assert (batch.rows == other.rows).all()
        assert (batch.targets == other.targets).all()
