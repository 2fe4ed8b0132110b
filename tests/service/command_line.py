"""Run a command line in this process, as the shell would."""

import io
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from unittest.mock import patch


def invoke(
    main: Callable[[Sequence[str]], None], *arguments: str, **environment: str
) -> tuple[int, str]:
    """Exit code, and all that was written to stdout and stderr."""
    output = io.StringIO()
    with (
        logs_of_its_own(),
        patch.dict("os.environ", environment),
        redirect_stdout(output),
        redirect_stderr(output),
    ):
        try:
            main(arguments)
        except SystemExit as ended:
            return int(ended.code or 0), output.getvalue()
    return 0, output.getvalue()


@contextmanager
def logs_of_its_own() -> Iterator[None]:
    """What the block configures of logs is undone, and written before that: a thread would write it
    after the test, past what captures the test's output."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        for handler in root.handlers:
            if handler not in handlers:
                handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)
