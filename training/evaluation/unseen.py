"""What a release was not trained on, stated so that it can be found again in any log.

A release may be measured on nothing else. The statement is stored beside the settings in its
manifest. A fit holds out users, the last items of users, or the time after a boundary; a nightly
run trains on everything up to its last event.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from index.release.gate import DAY_METRICS
from index.release.manifest import DataWindow, Manifest
from training.data.errors import LogError
from training.data.log_options import LogOptions
from training.data.packed_log import PackedLog
from training.data.splits import ProtocolName, hold_out, split_users, user_hashes
from training.evaluation.holdout_day import boundaries
from training.evaluation.protocols import (
    EvaluationCase,
    make_cases,
    split_log,
    temporal_borders,
)

Part = Literal["test", "validation"]
_LAST_ITEMS: tuple[ProtocolName, ...] = ("leave-one-out", "sampled-99")


class Unseen(NamedTuple):
    """kind users: test users have a hash below `test`, validation users one from there to `train`.

    last-items: the last two items of each user of the log with the hash `test`; the release has
    seen the others. later: the test part begins at the time `test`, validation at `train`; they are
    equal if nothing between was held out.
    """

    kind: Literal["users", "last-items", "later"]
    test: str | float
    train: str | float

    def to_settings(self) -> dict[str, str | float]:
        """As it is stored among the training settings of a manifest."""
        return {f"unseen_{name}": value for name, value in self._asdict().items()}

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "Unseen":
        return cls(*(settings[f"unseen_{name}"] for name in cls._fields))

    def sentence(self, data: DataWindow) -> str:
        """What was trained on, in words."""
        counts = f"{data.interactions:,} interactions of {data.users:,} users"
        if self.kind == "users":
            return (
                f"trained on a log of {counts}, without the users of its validation and test part"
            )
        if self.kind == "last-items":
            return f"trained on a log of {counts}, without the last two items of each user"
        if self.test == self.train:
            return f"trained on all {counts}, up to the time {data.last:.0f}"
        return f"trained on a log of {counts}, up to the time {self.train:.0f}"


def later_than(time: float) -> Unseen:
    """Of a release that was trained on everything up to this time."""
    border = float(np.nextafter(time, np.inf))
    return Unseen("later", border, border)


def unseen_by_fit(options: LogOptions, log: PackedLog) -> Unseen:
    """Of a fit on this log."""
    if options.split == "unseen-users":
        users = split_users(log.user_ids, options.test_fraction, options.split_seed)
        first = log.user_ids[[users.validation[0], users.train[0]]]
        test, train = (digest.hex() for digest in user_hashes(first, options.split_seed))
        return Unseen("users", test, train)
    if options.split == "temporal":
        validation_start, test_start = temporal_borders(log, options.test_fraction)
        return Unseen("later", test_start, validation_start)
    return Unseen("last-items", _content(log), "")


def unseen_by(manifest: Manifest, options: LogOptions, log: PackedLog) -> Unseen:
    """Of any release. One made before this was stated counts as trained on everything that its data
    spans, unless it is of a fit on this very log."""
    if "unseen_kind" in manifest.training:
        stated = Unseen.from_settings(manifest.training)
        if stated.kind == "last-items" and stated.test != _content(log):
            return later_than(manifest.data.last)
        return stated
    data = manifest.data
    same = (data.interactions, data.users, data.first, data.last) == (
        *(len(log.rows), len(log)),
        *(float(log.times.min()), float(log.times.max())),
    )
    if DAY_METRICS in manifest.metrics or not same:
        return later_than(data.last)
    return unseen_by_fit(options, log)


def unseen_cases(
    unseen: Unseen,
    log: PackedLog,
    items: int,
    options: LogOptions,
    split: ProtocolName | None,
    part: Part,
) -> list[EvaluationCase]:
    """The cases of a protocol, by default that of the fit, with held-out items that it did not see.

    items: number in the catalogue. Raises LogError if there are none.
    """
    match unseen.kind:
        case "users":
            cases = _of_users(unseen, log, items, options, split, part)
        case "last-items":
            name = _allowed(split or options.split, _LAST_ITEMS)
            cases = getattr(_split(name, log, items, options), part)
        case _:
            _allowed(split or "temporal", ("temporal",))
            cases = _later(unseen, log, part)
    if not cases:
        raise LogError("nothing in the log is left to measure on; give a log that goes on after it")
    return cases


def trained_part(
    unseen: Unseen, log: PackedLog, items: int, options: LogOptions, split: ProtocolName | None
) -> PackedLog:
    """What the release was trained on, as far as the log has it; possibly of no user."""
    match unseen.kind:
        case "users":
            border = bytes.fromhex(str(unseen.train))
            hashes = user_hashes(log.user_ids, options.split_seed)
            return log.take(np.flatnonzero([digest >= border for digest in hashes]))
        case "last-items":
            train: PackedLog = _split(split or options.split, log, items, options).train
            return train
        case _:
            return log.truncate(log.ends_before(float(unseen.train)))


def _allowed(split: ProtocolName, allowed: tuple[ProtocolName, ...]) -> ProtocolName:
    if split not in allowed:
        raise LogError(
            f"split {split}: it would measure what was trained on; leave it out, or use "
            + " or ".join(allowed)
        )
    return split


def _split(name: ProtocolName, log: PackedLog, items: int, options: LogOptions) -> Any:
    return split_log(name, log, items, options.test_fraction, options.split_seed)


def _of_users(
    unseen: Unseen,
    log: PackedLog,
    items: int,
    options: LogOptions,
    split: ProtocolName | None,
    part: Part,
) -> list[EvaluationCase]:
    hashes = user_hashes(log.user_ids, options.split_seed)
    test, train = (bytes.fromhex(str(border)) for border in (unseen.test, unseen.train))
    low, high = (b"", test) if part == "test" else (test, train)
    in_part = [user for user, digest in enumerate(hashes) if low <= digest < high]
    users = np.array(sorted(in_part, key=hashes.__getitem__), dtype=np.int64)
    if not len(users):
        return []
    if split in (None, "unseen-users"):
        held_out = hold_out(log, users)
        return make_cases(log, held_out.starts, held_out.cuts, held_out.ends)
    cases: list[EvaluationCase] = getattr(_split(split, log.take(users), items, options), part)
    return cases


def _later(unseen: Unseen, log: PackedLog, part: Part) -> list[EvaluationCase]:
    starts, ends = log.offsets[:-1], log.offsets[1:]
    if unseen.test == unseen.train:  # a user who is new then is shown the first half of it
        _, cuts = boundaries(log.offsets, log.times, float(unseen.test))
        return make_cases(log, starts, cuts, ends)
    train_ends, test_starts = (log.ends_before(float(t)) for t in (unseen.train, unseen.test))
    if part == "test":
        return make_cases(log, starts, test_starts, ends)
    return make_cases(log, starts, train_ends, test_starts)


def _content(log: PackedLog) -> str:
    """Hash of users, items and times."""
    sha256 = hashlib.sha256("\0".join(log.user_ids).encode())
    for numbers in (log.offsets, log.rows, log.times):
        sha256.update(numbers.data)
    return sha256.hexdigest()[:16]
