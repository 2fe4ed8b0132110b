"""Who is told of an outcome: a webhook, a command. What goes wrong there is said, and no more."""

import json
import os
import shlex
import signal
import subprocess
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx
from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_attempt
from tenacity import wait_random_exponential as backoff

Say = Callable[[str], None]
_LONGEST_WAIT_S = 5.0


def post(url: str, message: dict[str, Any], timeout_s: float, attempts: int, say: Say) -> bool:
    """Whether the URL took the message, as JSON, in one of so many attempts.

    Of the URL only the host is ever said: the rest may be a secret.
    """
    retrying = Retrying(
        retry=retry_if_exception_type(httpx.HTTPError),
        stop=stop_after_attempt(attempts),
        wait=backoff(multiplier=0.1, max=_LONGEST_WAIT_S),
    )
    try:
        retrying(lambda: httpx.post(url, json=message, timeout=timeout_s).raise_for_status())
    except RetryError as error:
        last = error.last_attempt.exception()
        what: object = type(last).__name__
        if isinstance(last, httpx.HTTPStatusError):
            what = last.response.status_code
        say(
            f"webhook at {urlsplit(url).hostname}: {attempts} attempts failed, the last with {what}"
        )
        return False
    except (httpx.InvalidURL, ValueError):
        say("webhook: not a URL that can be posted to; correct the setting")
        return False
    return True


def run(command: str, message: dict[str, Any], timeout_s: float, say: Say) -> bool:
    """Whether the command, without a shell, ended with 0; it reads the message on its input.

    What takes too long is ended, with all that it has started.
    """
    try:
        process = subprocess.Popen(
            shlex.split(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        say(f"command: could not be run ({type(error).__name__})")
        return False
    with process:
        try:
            _, complaint = process.communicate(json.dumps(message).encode(), timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            say(f"command: not done after {timeout_s:g} s, and ended")
            return False
    if process.returncode:
        said = " ".join(complaint.decode(errors="replace").split())[:200]
        say(f"command: ended with {process.returncode} ({said})")
    return process.returncode == 0
