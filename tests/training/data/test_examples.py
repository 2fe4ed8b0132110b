"""Examples: each item but a user's first, once an epoch, with the items before it as history."""

import numpy as np

from training.data.examples import ExampleStream
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
