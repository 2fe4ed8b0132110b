"""Notification of an outcome: a webhook, a command. Their failures are reported, never raised."""

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

MessageCallback = Callable[[str], None]
_MAX_WAIT_S = 5.0
_MAX_STDERR_CHARS = 200


def post_webhook(
    url: str,
    message: dict[str, Any],
    timeout_s: float,
    attempts: int,
    on_message: MessageCallback,
) -> bool:
    """Whether the URL accepted the message, as JSON, within the given number of attempts.

    Messages name only the host of the URL, because the rest may be a secret.
    """
    retrying = Retrying(
        retry=retry_if_exception_type(httpx.HTTPError),
        stop=stop_after_attempt(attempts),
        wait=backoff(multiplier=0.1, max=_MAX_WAIT_S),
    )
    try:
        retrying(lambda: httpx.post(url, json=message, timeout=timeout_s).raise_for_status())
    except RetryError as error:
        last = error.last_attempt.exception()
        reason: object = type(last).__name__
        if isinstance(last, httpx.HTTPStatusError):
            reason = last.response.status_code
        host = urlsplit(url).hostname
        on_message(f"webhook at {host}: {attempts} attempts failed, the last with {reason}")
        return False
    except (httpx.InvalidURL, ValueError):
        on_message("webhook: not a URL that can be posted to; correct the setting")
        return False
    return True


def run_command(
    command: str, message: dict[str, Any], timeout_s: float, on_message: MessageCallback
) -> bool:
    """Whether the command, run without a shell, exited with 0. It gets the message on stdin.

    After the timeout, the command and all processes that it has started are killed.
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
        on_message(f"command: could not be run ({type(error).__name__})")
        return False
    with process:
        try:
            _, stderr = process.communicate(json.dumps(message).encode(), timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            on_message(f"command: killed after {timeout_s:g} s")
            return False
    if process.returncode:
        text = " ".join(stderr.decode(errors="replace").split())[:_MAX_STDERR_CHARS]
        on_message(f"command: exited with {process.returncode} ({text})")
    return process.returncode == 0
