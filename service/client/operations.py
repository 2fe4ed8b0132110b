"""The calls of the service as a client makes them, and what it reads of what comes back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from service.http.schemas.availability import Availability, AvailabilityNow
from service.http.schemas.common import ErrorBody, ProblemDetail
from service.http.schemas.histories import Accepted, Forgotten, History
from service.http.schemas.items import SimilarItems
from service.http.schemas.operations import Ready, ReleaseState, Reloaded
from service.http.schemas.recommend import Recommendations, RecommendedBatch, RecommendRequest
from service.store.events import Event

Answer = TypeVar("Answer", bound=BaseModel)


class CallError(Exception):
    """A call without an answer. The text says what was given, what is allowed and what to do.

    status: of HTTP; None if nothing came back. code: of the service, for programs.
    """

    def __init__(
        self,
        message: str,
        status: int | None = None,
        code: str | None = None,
        problems: Sequence[ProblemDetail] = (),
        retry_after_s: float | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.problems = tuple(problems)
        self.retry_after_s = retry_after_s
        self.request_id = request_id


class InvalidRequestError(CallError):
    """The service does not take that: 408, 413 or 422. `problems` tells each."""


class UnauthorizedError(CallError):
    """The key is missing or wrong: 401."""


class ForbiddenError(CallError):
    """The key may not do this: 403."""


class NotFoundError(CallError):
    """There is no such item or path: 404."""


class ConflictError(CallError):
    """What `current` names cannot be served: 409."""


class RateLimitedError(CallError):
    """The key has sent all that it may for `retry_after_s`: 429."""


class UnavailableError(CallError):
    """Not now: 503, or the connection was refused or dropped."""


class TimedOutError(CallError):
    """No answer in time; the service may have done what was asked."""


_REQUEST_ID = "x-request-id"
_ERRORS: dict[int, type[CallError]] = {
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    408: InvalidRequestError,
    409: ConflictError,
    413: InvalidRequestError,
    422: InvalidRequestError,
    429: RateLimitedError,
    503: UnavailableError,
}


@dataclass(frozen=True)
class Call(Generic[Answer]):
    """again: whether sending it twice does no more than sending it once."""

    method: str
    path: str
    answer: type[Answer]
    body: bytes | None = None
    params: Mapping[str, int] | None = None
    again: bool = True

    def read(self, response: httpx.Response) -> Answer:
        """Raises CallError."""
        if not response.is_success:
            raise _error(response)
        try:
            return self.answer.model_validate_json(response.content)
        except ValidationError as error:
            raise CallError(
                f"{self.method} {self.path}: the answer is not {self.answer.__name__} "
                f"({error.error_count()} problems); is the client as new as the service?",
                response.status_code,
            ) from error


def _error(response: httpx.Response) -> CallError:
    cls = _ERRORS.get(response.status_code, CallError)
    after, request_id = response.headers.get("retry-after", ""), response.headers.get(_REQUEST_ID)
    wait_s = float(after) if after.isdecimal() else None
    try:
        told = ErrorBody.model_validate_json(response.content).error
    except ValidationError:  # from a proxy on the way
        message = f"status {response.status_code} and no error of the service; is that its URL?"
        return cls(message, response.status_code, None, (), wait_s, request_id)
    return cls(told.message, response.status_code, told.code, told.problems, wait_s, request_id)


def recommend(asked: RecommendRequest) -> Call[Recommendations]:
    return Call("POST", "/recommend", Recommendations, _json(asked))


def recommend_all(asked: Sequence[RecommendRequest]) -> Call[RecommendedBatch]:
    body = b'{"requests":[' + b",".join(map(_json, asked)) + b"]}"
    return Call("POST", "/recommend/batch", RecommendedBatch, body)


def similar(item_id: str, k: int) -> Call[SimilarItems]:
    return Call("GET", f"/items/{_quoted(item_id)}/similar", SimilarItems, params={"k": k})


def add(events: Sequence[Event]) -> Call[Accepted]:
    body = b"[" + b",".join(map(_json, events)) + b"]"
    named = all(event.event_id is not None for event in events)
    return Call("POST", "/events", Accepted, body, again=named)


def history(user_id: str) -> Call[History]:
    return Call("GET", f"/users/{_quoted(user_id)}/history", History)


def forget(user_id: str) -> Call[Forgotten]:
    return Call("DELETE", f"/users/{_quoted(user_id)}/history", Forgotten)


def set_available(item_id: str, available: bool) -> Call[AvailabilityNow]:
    body = _json(Availability(available=available))
    return Call("PUT", f"/items/{_quoted(item_id)}", AvailabilityNow, body)


def ready() -> Call[Ready]:
    return Call("GET", "/readyz", Ready, again=False)


def release() -> Call[ReleaseState]:
    return Call("GET", "/release", ReleaseState)


def reload() -> Call[Reloaded]:
    return Call("POST", "/admin/reload", Reloaded)


def _json(model: BaseModel) -> bytes:
    return model.model_dump_json(exclude_unset=True).encode()


def _quoted(text: str) -> str:
    """As one part of a path, also where it is made of dots, which else are a way up."""
    return quote(text, safe="").replace(".", "%2E")


def broken(call: Call[Any], error: httpx.TransportError) -> CallError:
    """The error of a call that nothing came back of."""
    what = f"{call.method} {call.path}"
    if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
        return TimedOutError(f"{what}: no answer in time; allow more, or ask for less")
    return UnavailableError(f"{what}: the service cannot be reached ({error}); is it running?")
