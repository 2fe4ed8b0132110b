"""What can go wrong with a request, and the one table from error to HTTP status.

A message says what was given, what is allowed and what to do. None holds an id of a user or item
unless the client itself just sent it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import ValidationError
from starlette.exceptions import HTTPException

from index.release.errors import ReleaseError


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a body: where it stands there, and what is allowed."""

    where: str
    message: str


class ServiceError(Exception):
    """Base of the errors that the service itself raises; the text is the message sent."""

    problems: Sequence[Problem] = ()


class InvalidBodyError(ServiceError):
    """The body is not JSON, or not what the endpoint takes."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(f"{p.where}: {p.message}" for p in problems))
        self.problems = problems


class BodyTooLargeError(ServiceError):
    """The body is longer than any valid one needs to be."""


class HeadTooLargeError(ServiceError):
    """Path and headers are longer than any valid ones need to be."""


class BodyTooSlowError(ServiceError):
    """The body did not arrive in time."""


class UnknownItemError(ServiceError):
    """The release in use does not know the item that the path names."""


class UnauthorizedError(ServiceError):
    """The key is missing or wrong."""


class ForbiddenError(ServiceError):
    """The key is known, and may not do this."""


class RateLimitedError(ServiceError):
    """The caller has sent all that it may for now."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ClientGoneError(ServiceError):
    """The client hung up before its answer was ready."""


class NotReadyError(ServiceError):
    """No release is loaded, or the process is about to end."""


class OverloadedError(ServiceError):
    """More requests wait than may, or than could be answered in time."""


class HistoryUnavailableError(ServiceError):
    """Redis did not do what was asked of it in time."""


@dataclass(frozen=True)
class ErrorSpec:
    """How an error is told to the client."""

    status: int
    code: str
    headers: tuple[tuple[str, str], ...] = ()


_RETRY = (("retry-after", "1"),)

ERROR_SPECS: dict[type[Exception], ErrorSpec] = {
    InvalidBodyError: ErrorSpec(422, "invalid_request"),
    # The rest of the body is not read: the connection cannot be used again.
    BodyTooLargeError: ErrorSpec(413, "body_too_large", (("connection", "close"),)),
    HeadTooLargeError: ErrorSpec(431, "headers_too_large", (("connection", "close"),)),
    BodyTooSlowError: ErrorSpec(408, "body_too_slow", (("connection", "close"),)),
    UnknownItemError: ErrorSpec(404, "unknown_item"),
    UnauthorizedError: ErrorSpec(401, "unauthorized", (("www-authenticate", "Bearer"),)),
    ForbiddenError: ErrorSpec(403, "forbidden"),
    RateLimitedError: ErrorSpec(429, "rate_limited"),
    ClientGoneError: ErrorSpec(499, "client_gone"),
    NotReadyError: ErrorSpec(503, "not_ready", _RETRY),
    OverloadedError: ErrorSpec(503, "overloaded", _RETRY),
    HistoryUnavailableError: ErrorSpec(503, "history_unavailable", _RETRY),
    ReleaseError: ErrorSpec(409, "release_refused"),
    Exception: ErrorSpec(500, "internal"),
}

_HTTP_ERROR_SPECS = {
    404: ("not_found", "path: there is nothing here; see /docs for what there is"),
    405: ("method_not_allowed", "method: not one that this path takes; see the Allow header"),
}


@dataclass(frozen=True)
class ErrorResponse:
    """An error as the client gets it."""

    status: int
    headers: dict[str, str]
    body: dict[str, Any]


def to_response(error: Exception) -> ErrorResponse:
    """Status, headers and body for any error; one of ours, the framework's, or a bug."""
    if isinstance(error, HTTPException):
        return _http_error_response(error)
    kind = next(ERROR_SPECS[cls] for cls in type(error).__mro__ if cls in ERROR_SPECS)
    bug = kind.status == 500
    message = "server: this is a bug on our side; it is in the logs" if bug else str(error)
    problems = getattr(error, "problems", ())
    headers = dict(kind.headers)
    if isinstance(error, RateLimitedError):
        headers["retry-after"] = str(error.retry_after_s)
    return ErrorResponse(kind.status, headers, body(kind.code, message, problems))


def _http_error_response(error: HTTPException) -> ErrorResponse:
    code, message = _HTTP_ERROR_SPECS.get(error.status_code, ("http_error", error.detail))
    return ErrorResponse(error.status_code, dict(error.headers or {}), body(code, message))


def body(code: str, message: str, problems: Sequence[Problem] = ()) -> dict[str, Any]:
    """The one shape of every error."""
    details = {"problems": [asdict(problem) for problem in problems]} if problems else {}
    return {"error": {"code": code, "message": message, **details}}


_PROBLEMS_SHOWN = 5
_GIVEN_SHOWN = 40
_WHERE_SHOWN = 80
_DIGITS_SHOWN = 10**15


def invalid_body(error: ValidationError) -> InvalidBodyError:
    """Pydantic's complaint in our words: the place, what is allowed, what was given."""
    return invalid(error.errors(include_url=False))


def invalid(found: Sequence[Mapping[str, Any]]) -> InvalidBodyError:
    """The same of what pydantic lists."""
    problems = [
        Problem(
            where=".".join(map(str, problem["loc"]))[:_WHERE_SHOWN] or "body",
            message=f"{problem['msg']}{_given(problem['type'], problem['input'])}",
        )
        for problem in found[:_PROBLEMS_SHOWN]
    ]
    if len(found) > _PROBLEMS_SHOWN:
        problems.append(Problem("body", f"and {len(found) - _PROBLEMS_SHOWN} more problems"))
    return InvalidBodyError(problems)


def _given(kind: str, value: object) -> str:
    """What was given, where that is short and helps."""
    if kind in ("missing", "json_invalid"):
        return ""
    if isinstance(value, str):
        return f"; given {value[:_GIVEN_SHOWN]!r}" + "..." * (len(value) > _GIVEN_SHOWN)
    if isinstance(value, bool | float) or value is None:
        return f"; given {value}"
    if isinstance(value, int):
        return f"; given {value}" if abs(value) < _DIGITS_SHOWN else "; given a huge number"
    return f"; given {'an object' if isinstance(value, dict) else 'a list'}"
