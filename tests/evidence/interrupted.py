"""Interrupts publishers; a program for publish_kills.py and tests/index/release/test_publish.py.

python interrupted.py TEMPLATE SCRATCH [--each 1] [--random 0], where TEMPLATE is a root with the
drafts first, second, third and fourth. Each scenario is interrupted at each change of the file
system, --each times, and killed at random moments. Prints a JSON object: scenario -> number of its
points, and the numbers of kills at points and at random.

It forks a child for each trial instead of starting an interpreter. It does not run torch or faiss
itself, so that a child inherits none of their threads and held locks.
"""

import argparse
import errno
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from children import begin, end_of, in_child

from index.release.canary_release import abort, promote, publish_canary
from index.release.errors import ReleaseError
from index.release.listing import list_releases, verify
from index.release.publish import prune, publish, rollback
from index.release.reading import open_release, read_current

Action = Callable[[Path], object]
_CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir"}
_NEEDS_SPACE = {"os.mkdir", "os.rename"}
_REFUSED = 3


def _publish(*names: str, keep: int = 5) -> Action:
    return lambda root: [publish(root / "drafts" / name, keep=keep) for name in names]


def _canary(root: Path) -> object:
    return publish_canary(root / "drafts" / "second", 0.1)


def _with_canary(root: Path) -> None:
    _publish("first")(root)
    _canary(root)


SCENARIOS: dict[str, tuple[Action, Action]] = {
    "first publish": (_publish(), _publish("first")),
    "publish and prune": (_publish("first", "second"), _publish("third", keep=1)),
    "rollback": (_publish("first", "second"), rollback),
    "prune": (_publish("first", "second", "third"), lambda root: prune(root, keep=1)),
    "canary": (_publish("first"), _canary),
    "promote": (_with_canary, promote),
    "abort": (_with_canary, abort),
}


def as_work(action: Action, root: Path) -> Callable[[], int]:
    def work() -> int:
        action(root)
        return 0

    return work


def intercept(root: Path, reach: Callable[[bool, Callable[[], None]], None]) -> None:
    """From now on, call reach(needs space, do half of it) before each file system change."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        if event in _CHANGES or (writes and str(arguments[0]).startswith(str(root))):
            reach(writes or event in _NEEDS_SPACE, lambda: None)

    fsync, sendfile = os.fsync, os.sendfile

    def intercepted_fsync(descriptor: int) -> None:
        reach(True, lambda: None)
        fsync(descriptor)

    def intercepted_sendfile(out: int, source: int, offset: int, count: int) -> int:
        size = os.fstat(source).st_size
        reach(True, lambda: (sendfile(out, source, offset, size // 2), None)[1])
        return sendfile(out, source, offset, count)

    os.fsync, os.sendfile = intercepted_fsync, intercepted_sendfile
    sys.addaudithook(hook)


def killed(action: Action, point: int) -> Action:
    """The action, killed before its change number `point`, or halfway through it."""

    def run(root: Path) -> None:
        left = point

        def reach(needs_space: bool, half: Callable[[], None]) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                half()
                os.kill(os.getpid(), signal.SIGKILL)

        intercept(root, reach)
        action(root)

    return run


def filled(action: Action, point: int) -> Action:
    """The action on a disk that is full from change number `point` on; exits with _REFUSED."""

    def run(root: Path) -> None:
        left = point

        def reach(needs_space: bool, half: Callable[[], None]) -> None:
            nonlocal left
            left -= needs_space
            if needs_space and left <= 0:
                half()
                raise OSError(errno.ENOSPC, "No space left on device")

        intercept(root, reach)
        refusal = ""
        try:
            action(root)
        except ReleaseError as error:
            refusal = str(error)
        if refusal:
            assert "No space left" in refusal, refusal
            assert "\n" not in refusal, refusal
            assert not _hidden(root), f"leftovers: {_hidden(root)}"
            os._exit(_REFUSED)

    return run


def check(before: str | None, after: str | None) -> Action:
    """Checks that must hold after an interruption at any point."""

    def run(root: Path) -> None:
        live = read_current(root)
        assert live in (before, after), f"current is {live}, was {before}, becomes {after}"
        if live is not None:
            open_release(root / "releases" / live)
        for release in list_releases(root):
            assert release.problem is None, release.problem
        publish(root / "drafts" / "fourth")
        assert read_current(root) == "fourth"
        assert not _hidden(root), f"leftovers: {_hidden(root)}"
        assert all(verdict.problem is None for verdict in verify(root)), verify(root)

    return run


def _hidden(root: Path) -> list[str]:
    return [
        str(path) for name in ("releases/.*", ".current*", ".canary*") for path in root.glob(name)
    ]


class Trials:
    """Trials of one scenario, each from a copy of the same root."""

    def __init__(self, name: str, scratch: Path) -> None:
        self._name = name
        prepare, self._action = SCENARIOS[name]
        self._prepared, self._root = scratch / "prepared", scratch / "root"
        self._copy(scratch / "template", self._prepared)
        assert in_child(as_work(prepare, self._prepared)) == 0, f"{name}: cannot be prepared"
        finished = scratch / "finished"
        self._copy(self._prepared, finished)
        started = time.monotonic()
        assert in_child(as_work(self._action, finished)) == 0, f"{name}: fails uninterrupted"
        self._seconds = time.monotonic() - started
        self._check = check(read_current(self._prepared), read_current(finished))
        self.points = self.kills = self.random_kills = 0

    def interrupt_at_each_point(self, manner: Callable[[Action, int], Action], each: int) -> None:
        """Interrupt at one point after another, until the action completes."""
        while True:
            point, ends = self.points + 1, []
            for _ in range(each):
                self._copy(self._prepared, self._root)
                ends.append(in_child(as_work(manner(self._action, point), self._root)))
                self._check_result(f"point {point}", ends[-1])
            self.kills += ends.count(-signal.SIGKILL)
            if 0 in ends:
                return
            self.points = point

    def kill_at_random(self, count: int, draw: random.Random) -> None:
        for number in range(count):
            self._copy(self._prepared, self._root)
            child = begin(as_work(self._action, self._root))
            time.sleep(draw.uniform(0, self._seconds))
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            end = end_of(child)
            self._check_result(f"random {number}", end)
            self.random_kills += end == -signal.SIGKILL

    def _check_result(self, where: str, end: int) -> None:
        where = f"{self._name}, {where}"
        assert end in (0, _REFUSED, -signal.SIGKILL), f"{where}: ended with {end}"
        assert in_child(as_work(self._check, self._root)) == 0, f"{where}: see above"

    def _copy(self, source: Path, target: Path) -> None:
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)


def main(template: Path, scratch: Path, each: int, random_kills: int) -> None:
    shutil.copytree(template, scratch / "template")
    draw = random.Random(0)
    summary = {"kills": 0, "random kills": 0}
    for name in SCENARIOS:
        trials = Trials(name, scratch)
        trials.interrupt_at_each_point(killed, each)
        trials.kill_at_random(random_kills // len(SCENARIOS), draw)
        summary[name] = trials.points
        summary["kills"] += trials.kills
        summary["random kills"] += trials.random_kills
        print(summary, file=sys.stderr, flush=True)
    full = Trials("publish and prune", scratch)
    full.interrupt_at_each_point(filled, 1)
    print(json.dumps({**summary, "full disk": full.points}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("template", type=Path)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--each", type=int, default=1, help="kills at each point")
    parser.add_argument("--random", type=int, default=0, help="kills at random moments")
    options = parser.parse_args()
    main(options.template, options.scratch, options.each, options.random)
