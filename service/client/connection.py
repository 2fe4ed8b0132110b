"""How a client connects, and when it tries again."""

from typing import Any

from tenacity import (
    retry_if_exception,
    stop_after_attempt,
    wait_exception,
    wait_exponential_jitter,
)

from service.client.operations import UnavailableError

TIMEOUT_S = 2.0
RETRIES = 2
_FIRST_BACKOFF_S = 0.1  # doubled with each retry
_JITTER_S = 0.25  # so that the clients of a service that was overloaded do not all return at once
_MAX_WAIT_S = 30.0


def http_options(url: str, key: str | None, timeout_s: float) -> dict[str, Any]:
    """Arguments of a client of httpx."""
    headers = {"content-type": "application/json", "x-deadline-ms": f"{timeout_s * 1e3:.0f}"}
    if key is not None:
        headers["authorization"] = f"Bearer {key}"
    return {"base_url": url, "headers": headers, "timeout": timeout_s}


def retry_policy(retries: int) -> dict[str, Any]:
    """Arguments of Retrying. retries: attempts after the first."""
    return {
        "stop": stop_after_attempt(retries + 1),
        "wait": wait_exception(_retry_after_s)
        + wait_exponential_jitter(multiplier=_FIRST_BACKOFF_S, max=_MAX_WAIT_S, jitter=_JITTER_S),
        "retry": retry_if_exception(_is_retryable),
        "reraise": True,
    }


def _is_retryable(error: BaseException) -> bool:
    return isinstance(error, UnavailableError) and _retry_after_s(error) <= _MAX_WAIT_S


def _retry_after_s(error: BaseException) -> float:
    """Seconds that the service asks for; 0 if it does not say."""
    return (error.retry_after_s or 0) if isinstance(error, UnavailableError) else 0
