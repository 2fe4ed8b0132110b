"""A program for test_publish.py: cut publishers short wherever they change the file system.

python interrupted.py TEMPLATE SCRATCH, where TEMPLATE is a root with the drafts first, second,
third and fourth. Prints a JSON object: scenario -> number of points at which it was cut.

It forks a child for each trial instead of starting an interpreter, and runs neither torch nor faiss
itself, so that a child inherits no thread and no held lock of theirs.
"""

import errno
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.utils._device  # noqa: F401  (which torch otherwise imports in every child anew)

from index.publish import list_releases, prune, publish, rollback, verify
from index.release import ReleaseError, open_release, read_current

Action = Callable[[Path], object]
_CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir"}
_NEEDS_SPACE = {"os.mkdir", "os.rename"}
_REFUSED = 3


def _publish(*names: str, keep: int = 5) -> Action:
    return lambda root: [publish(root / "drafts" / name, keep=keep) for name in names]


SCENARIOS: dict[str, tuple[Action, Action]] = {
    "first publish": (_publish(), _publish("first")),
    "publish and prune": (_publish("first", "second"), _publish("third", keep=1)),
    "rollback": (_publish("first", "second"), rollback),
    "prune": (_publish("first", "second", "third"), lambda root: prune(root, keep=1)),
}


def in_child(action: Action, root: Path) -> int:
    """How the child that ran the action ended: 0, or the signal that killed it, negative."""
    child = os.fork()
    if child == 0:
        os.fsync = lambda descriptor: (
            None
        )  # a kill does not lose what was written, and disks are slow
        try:
            action(root)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def intercept(root: Path, reach: Callable[[bool, Callable[[], None]], None]) -> None:
    """From now on, call reach(needs space, do half of it) before each change of the file system."""

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
    """The action, killed before its change number `point`, or with half of it made."""

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
    """The action on a disk that is full from change number `point` on; it exits with _REFUSED."""

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
            assert not _hidden(root), f"left behind: {_hidden(root)}"
            os._exit(_REFUSED)

    return run


def check(before: str | None, after: str | None) -> Action:
    """What must hold wherever a process was cut short."""

    def run(root: Path) -> None:
        live = read_current(root)
        assert live in (before, after), f"current is {live}, was {before}, becomes {after}"
        if live is not None:
            open_release(root / "releases" / live)
        for release in list_releases(root):
            assert release.problem is None, release.problem
        publish(root / "drafts" / "fourth")
        assert read_current(root) == "fourth"
        assert not _hidden(root), f"left behind: {_hidden(root)}"
        assert all(verdict.problem is None for verdict in verify(root)), verify(root)

    return run


def _hidden(root: Path) -> list[str]:
    return [str(path) for path in (*root.glob("releases/.*"), *root.glob(".current*"))]


def cut_everywhere(name: str, manner: Callable[[Action, int], Action], scratch: Path) -> int:
    """The number of points at which the scenario was cut, and what must hold did hold."""
    prepare, action = SCENARIOS[name]
    prepared, root = scratch / "prepared", scratch / "root"
    shutil.rmtree(prepared, ignore_errors=True)
    shutil.copytree(scratch / "template", prepared)
    assert in_child(prepare, prepared) == 0, f"{name}: cannot be prepared"
    finished = scratch / "finished"
    shutil.rmtree(finished, ignore_errors=True)
    shutil.copytree(prepared, finished)
    assert in_child(action, finished) == 0, f"{name}: fails without being cut"
    holds = check(read_current(prepared), read_current(finished))
    point = 0
    while True:
        point += 1
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(prepared, root)
        end = in_child(manner(action, point), root)
        assert end in (0, _REFUSED, -signal.SIGKILL), f"{name}, point {point}: ended with {end}"
        assert in_child(holds, root) == 0, f"{name}, point {point}: see above"
        if end == 0:
            return point - 1


def main(template: Path, scratch: Path) -> None:
    shutil.copytree(template, scratch / "template")
    points = {name: cut_everywhere(name, killed, scratch) for name in SCENARIOS}
    points["full disk"] = cut_everywhere("publish and prune", filled, scratch)
    print(json.dumps(points))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
