"""The errors of a request, and the one table from error to HTTP status.

A message says what was given, what is allowed and what to do. No message contains a user id or an
item id, unless the same client has just sent it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import ValidationError
from starlette.exceptions import HTTPException

from index.release.errors import ReleaseError
from index.retrieval.search import SearchUnavailableError


@dataclass(frozen=True)
class Problem:
    """One problem of a request: where it is, and what is allowed there."""

    where: str
    message: str


class ServiceError(Exception):
    """Base class of the service's errors. The text is sent to the client."""

    problems: Sequence[Problem] = ()


class InvalidRequestError(ServiceError):
    """The body, a parameter or a header is not what the endpoint accepts."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(f"{p.where}: {p.message}" for p in problems))
        self.problems = problems


class BodyTooLargeError(ServiceError):
    """The body is longer than the limit."""


class HeadersTooLargeError(ServiceError):
    """Path and headers together are longer than the limit."""


class BodyTooSlowError(ServiceError):
    """The body did not arrive in time."""


class HeadTooSlowError(ServiceError):
    """Request line and headers did not arrive in time."""


class MalformedRequestError(ServiceError):
    """What arrived is not HTTP."""


class UnsupportedTypeError(ServiceError):
    """The body is said to be something else than JSON."""


class UnsupportedEncodingError(ServiceError):
    """The body is compressed in a way that is not supported."""


class MisdirectedError(ServiceError):
    """The request names a host that is not allowed."""


class UnknownItemError(ServiceError):
    """The release in use does not contain the item in the path."""


class UnknownTenantError(ServiceError):
    """No tenant has the name in the path."""


class TooManyDetailsError(ServiceError):
    """More details of items, or of one, than are stored."""


class UnauthorizedError(ServiceError):
    """The API key is missing or wrong."""


class ForbiddenError(ServiceError):
    """The API key is valid, but does not permit this request."""


class RateLimitedError(ServiceError):
    """The caller has reached its rate limit."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ClientDisconnectedError(ServiceError):
    """The client closed the connection before the response."""


class NotReadyError(ServiceError):
    """No release is loaded, or the process is shutting down."""


class OverloadedError(ServiceError):
    """The queue is full, or too long to respond in time."""


class HistoryUnavailableError(ServiceError):
    """Redis did not complete a call in time."""


@dataclass(frozen=True)
class ErrorSpec:
    """Status, code and headers of the response to an error."""

    status: int
    code: str
    headers: tuple[tuple[str, str], ...] = ()


_RETRY_LATER = (("retry-after", "1"),)
# The rest of the request is not read, so the connection cannot be reused.
_CLOSE = (("connection", "close"),)

ERROR_SPECS: dict[type[Exception], ErrorSpec] = {
    InvalidRequestError: ErrorSpec(422, "invalid_request"),
    BodyTooLargeError: ErrorSpec(413, "body_too_large", _CLOSE),
    HeadersTooLargeError: ErrorSpec(431, "headers_too_large", _CLOSE),
    BodyTooSlowError: ErrorSpec(408, "body_too_slow", _CLOSE),
    HeadTooSlowError: ErrorSpec(408, "head_too_slow", _CLOSE),
    MalformedRequestError: ErrorSpec(400, "malformed_request", _CLOSE),
    UnsupportedTypeError: ErrorSpec(
        415, "unsupported_type", (("accept-post", "application/json"),)
    ),
    UnsupportedEncodingError: ErrorSpec(
        415, "unsupported_encoding", (("accept-encoding", "gzip"),)
    ),
    MisdirectedError: ErrorSpec(421, "misdirected"),
    UnknownItemError: ErrorSpec(404, "unknown_item"),
    UnknownTenantError: ErrorSpec(404, "unknown_tenant"),
    TooManyDetailsError: ErrorSpec(409, "too_many_details"),
    UnauthorizedError: ErrorSpec(401, "unauthorized", (("www-authenticate", "Bearer"),)),
    ForbiddenError: ErrorSpec(403, "forbidden"),
    RateLimitedError: ErrorSpec(429, "rate_limited"),
    ClientDisconnectedError: ErrorSpec(499, "client_gone"),
    NotReadyError: ErrorSpec(503, "not_ready", _RETRY_LATER),
    OverloadedError: ErrorSpec(503, "overloaded", _RETRY_LATER),
    HistoryUnavailableError: ErrorSpec(503, "history_unavailable", _RETRY_LATER),
    SearchUnavailableError: ErrorSpec(503, "engine_unavailable", _RETRY_LATER),
    ReleaseError: ErrorSpec(409, "release_refused"),
    Exception: ErrorSpec(500, "internal"),
}

EXPECTED_ERRORS = (ServiceError, ReleaseError, SearchUnavailableError)  # all others are bugs

# status -> code and message, for the errors that the framework raises
_HTTP_ERRORS = {
    404: ("not_found", "path: no such endpoint; see /docs for the list of endpoints"),
    405: ("method_not_allowed", "method: not allowed for this path; see the Allow header"),
}


@dataclass(frozen=True)
class ErrorResponse:
    """The response that a client gets for an error."""

    status: int
    headers: dict[str, str]
    body: dict[str, Any]


def to_response(error: Exception) -> ErrorResponse:
    """Status, headers and body for any error: the service's, the framework's, or a bug."""
    if isinstance(error, HTTPException):
        return _http_error_response(error)
    spec = next(ERROR_SPECS[cls] for cls in type(error).__mro__ if cls in ERROR_SPECS)
    is_bug = spec.status == 500
    message = (
        "server: internal error, which is a bug; see the server's logs" if is_bug else str(error)
    )
    problems = getattr(error, "problems", ())
    headers = dict(spec.headers)
    if isinstance(error, RateLimitedError):
        headers["retry-after"] = str(error.retry_after_s)
    return ErrorResponse(spec.status, headers, error_body(spec.code, message, problems))


def _http_error_response(error: HTTPException) -> ErrorResponse:
    code, message = _HTTP_ERRORS.get(error.status_code, ("http_error", error.detail))
    body = error_body(code, message)
    return ErrorResponse(error.status_code, dict(error.headers or {}), body)


def error_body(code: str, message: str, problems: Sequence[Problem] = ()) -> dict[str, Any]:
    """The JSON body that all errors share."""
    details = {"problems": [asdict(problem) for problem in problems]} if problems else {}
    return {"error": {"code": code, "message": message, **details}}


_MAX_PROBLEMS = 5
_MAX_INPUT_CHARACTERS = 40
_MAX_LOCATION_CHARACTERS = 80
_MAX_INTEGER = 10**15


def invalid_body(error: ValidationError) -> InvalidRequestError:
    """The error for a body that fails validation."""
    return invalid_request(error.errors(include_url=False))


def invalid_request(details: Sequence[Mapping[str, Any]]) -> InvalidRequestError:
    """The error for pydantic's error details: where, what is allowed, what was given."""
    problems = [
        Problem(
            where=".".join(map(str, detail["loc"]))[:_MAX_LOCATION_CHARACTERS] or "body",
            message=f"{detail['msg']}{_describe_input(detail['type'], detail['input'])}",
        )
        for detail in details[:_MAX_PROBLEMS]
    ]
    if len(details) > _MAX_PROBLEMS:
        problems.append(Problem("body", f"and {len(details) - _MAX_PROBLEMS} more problems"))
    return InvalidRequestError(problems)


def _describe_input(error_type: str, value: object) -> str:
    """The given value, shortened; empty if it does not help."""
    if error_type in ("missing", "json_invalid"):
        return ""
    if isinstance(value, str):
        shortened = "..." * (len(value) > _MAX_INPUT_CHARACTERS)
        return f"; given {value[:_MAX_INPUT_CHARACTERS]!r}{shortened}"
    if isinstance(value, bool | float) or value is None:
        return f"; given {value}"
    if isinstance(value, int):
        return f"; given {value}" if abs(value) < _MAX_INTEGER else "; given a huge number"
    return f"; given {'an object' if isinstance(value, dict) else 'a list'}"
