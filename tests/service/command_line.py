"""Run a command line in this process, as the shell would."""

import io
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from unittest.mock import patch


def invoke(
    main: Callable[[Sequence[str]], None], *arguments: str, **environment: str
) -> tuple[int, str]:
    """Exit code, and all that was written to stdout and stderr."""
    output = io.StringIO()
    with (
        patch.dict("os.environ", environment),
        redirect_stdout(output),
        redirect_stderr(output),
    ):
        try:
            main(arguments)
        except SystemExit as ended:
            return int(ended.code or 0), output.getvalue()
    return 0, output.getvalue()
