"""Lines to a pipe or a terminal that never make the service wait for whoever reads them."""

import os
import threading
from collections.abc import Callable
from queue import Full, Queue
from typing import ClassVar

_MAX_LINES = 5000  # that wait; a pipe holds some 300 more


class LineWriter:
    """A text stream with a bounded queue before it, which a thread empties.

    A full pipe would otherwise block the event loop, and with it every request. While the queue is
    full, lines are dropped and counted. notice: makes the line that says how many, which is written
    before the next one.
    """

    total_dropped: ClassVar[int] = 0  # by all writers of the process

    def __init__(
        self,
        descriptor: int,
        notice: Callable[[int], str] | None = None,
        max_lines: int = _MAX_LINES,
    ) -> None:
        self._descriptor = descriptor
        self._notice = notice
        self._lines: Queue[str] = Queue(max_lines)
        self._dropped = self._noticed = 0
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def write(self, text: str) -> int:
        """Never blocks. text: whole lines."""
        if self._thread is None:
            self._start()
        try:
            self._lines.put_nowait(text)
        except Full:
            self._drop()
        return len(text)

    def flush(self) -> None:
        """Does nothing, as it must not block: the thread writes each line at once."""

    def drain(self, timeout_s: float) -> None:
        """Wait until all is written, but not for a reader that does not read."""
        with self._lines.all_tasks_done:
            self._lines.all_tasks_done.wait_for(lambda: not self._lines.unfinished_tasks, timeout_s)

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                # A daemon: blocked by a full pipe, it must not keep the process from ending.
                self._thread = threading.Thread(target=self._run, name="output", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            text = self._lines.get()
            dropped = self._dropped
            if self._notice is not None and dropped > self._noticed:
                text = self._notice(dropped - self._noticed) + text
                self._noticed = dropped
            try:
                self._write(text.encode("utf-8", "backslashreplace"))
            except OSError:  # nobody will read it any more
                self._drop()
            self._lines.task_done()

    def _write(self, data: bytes) -> None:
        """Past sys.stderr, whose lock the interpreter takes at its end."""
        while data:
            data = data[os.write(self._descriptor, data) :]

    def _drop(self) -> None:
        self._dropped += 1
        LineWriter.total_dropped += 1


def dropped_lines() -> int:
    """Lines that this process has dropped since it started."""
    return LineWriter.total_dropped
