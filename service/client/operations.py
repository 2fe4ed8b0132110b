"""The calls of the service: how a client sends each, and how it reads the response."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from service.http.schemas.availability import (
    AvailabilitiesNow,
    AvailabilityNow,
    ItemChange,
    ItemChanges,
    NamedItemChange,
    WithdrawnPage,
)
from service.http.schemas.canary import CanaryReport
from service.http.schemas.common import ErrorBody, ProblemDetail
from service.http.schemas.histories import Accepted, Forgotten, History
from service.http.schemas.items import Item, SimilarItems
from service.http.schemas.operations import Ready, ReleaseState, Reloaded
from service.http.schemas.recommend import Recommendations, RecommendedBatch, RecommendRequest
from service.store.events import Event

Result = TypeVar("Result", bound=BaseModel)


class CallError(Exception):
    """A failed call. The text says what was given, what is allowed and what to do.

    status: of HTTP; None if there was no response. code: of the service, for programs.
    retry_after_s: seconds after which the service asks to retry; None if it does not say.
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
    """The request is invalid: 408, 413 or 422. `problems` lists why."""


class UnauthorizedError(CallError):
    """The key is missing or wrong: 401."""


class ForbiddenError(CallError):
    """The key may not do this: 403."""


class NotFoundError(CallError):
    """The item or path does not exist: 404."""


class ConflictError(CallError):
    """The release that `current` names cannot be served, or no more details are stored: 409."""


class RateLimitedError(CallError):
    """The key has used up its rate limit for `retry_after_s`: 429."""


class UnavailableError(CallError):
    """The service cannot answer now: 503, or the connection was refused or dropped."""


class TimedOutError(CallError):
    """No response in time; the service may have executed the call."""


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
class Call(Generic[Result]):
    """idempotent: whether sending it twice has the same effect as sending it once."""

    method: str
    path: str
    result: type[Result]
    body: bytes | None = None
    params: Mapping[str, int | str] | None = None
    idempotent: bool = True

    def parse(self, response: httpx.Response) -> Result:
        """Raises CallError."""
        if not response.is_success:
            raise _error(response)
        try:
            return self.result.model_validate_json(response.content)
        except ValidationError as error:
            raise CallError(
                f"{self.method} {self.path}: the response is not {self.result.__name__} "
                f"({error.error_count()} problems); is the client as new as the service?",
                response.status_code,
            ) from error


def _error(response: httpx.Response) -> CallError:
    cls = _ERRORS.get(response.status_code, CallError)
    status, request_id = response.status_code, response.headers.get(_REQUEST_ID)
    retry_after = response.headers.get("retry-after", "")
    retry_after_s = float(retry_after) if retry_after.isdecimal() else None
    try:
        error = ErrorBody.model_validate_json(response.content).error
    except ValidationError:  # from a proxy between
        message = f"status {status} and no error of the service; is that its URL?"
        return cls(message, status, None, (), retry_after_s, request_id)
    return cls(error.message, status, error.code, error.problems, retry_after_s, request_id)


def recommend(request: RecommendRequest) -> Call[Recommendations]:
    return Call("POST", "/recommend", Recommendations, _json(request))


def recommend_all(requests: Sequence[RecommendRequest]) -> Call[RecommendedBatch]:
    body = b'{"requests":[' + b",".join(map(_json, requests)) + b"]}"
    return Call("POST", "/recommend/batch", RecommendedBatch, body)


def similar(item_id: str, k: int) -> Call[SimilarItems]:
    return Call("GET", f"/items/{_path_segment(item_id)}/similar", SimilarItems, params={"k": k})


def add(events: Sequence[Event]) -> Call[Accepted]:
    body = b"[" + b",".join(map(_json, events)) + b"]"
    have_ids = all(event.event_id is not None for event in events)
    return Call("POST", "/events", Accepted, body, idempotent=have_ids)


def history(user_id: str) -> Call[History]:
    return Call("GET", f"/users/{_path_segment(user_id)}/history", History)


def forget(user_id: str) -> Call[Forgotten]:
    return Call("DELETE", f"/users/{_path_segment(user_id)}/history", Forgotten)


def item(item_id: str) -> Call[Item]:
    return Call("GET", f"/items/{_path_segment(item_id)}", Item)


def change(item_id: str, to: ItemChange) -> Call[AvailabilityNow]:
    return Call("PUT", f"/items/{_path_segment(item_id)}", AvailabilityNow, _json(to))


def change_all(items: Sequence[NamedItemChange]) -> Call[AvailabilitiesNow]:
    body = b"[" + b",".join(map(_json, items)) + b"]"
    return Call("POST", "/items", AvailabilitiesNow, body)


def set_available(item_id: str, available: bool) -> Call[AvailabilityNow]:
    return change(item_id, ItemChange(available=available))


def set_all_available(items: Mapping[str, bool]) -> Call[AvailabilitiesNow]:
    body = ItemChanges.model_validate(
        [{"item_id": item_id, "available": available} for item_id, available in items.items()]
    )
    return Call("PUT", "/items", AvailabilitiesNow, _json(body))


def withdrawn(after: str, limit: int, cursor: str) -> Call[WithdrawnPage]:
    params: dict[str, int | str] = {"available": "false", "limit": limit}
    params |= {"cursor": cursor} if cursor else {"after": after}
    return Call("GET", "/items", WithdrawnPage, params=params)


def ready() -> Call[Ready]:
    return Call("GET", "/readyz", Ready, idempotent=False)


def release() -> Call[ReleaseState]:
    return Call("GET", "/release", ReleaseState)


def canary() -> Call[CanaryReport]:
    return Call("GET", "/canary", CanaryReport)


def reload() -> Call[Reloaded]:
    return Call("POST", "/admin/reload", Reloaded)


def _json(model: BaseModel) -> bytes:
    return model.model_dump_json(exclude_unset=True).encode()


def _path_segment(text: str) -> str:
    """Percent-encoded, dots too: `..` would be the parent."""
    return quote(text, safe="").replace(".", "%2E")


def transport_error(call: Call[Any], error: httpx.TransportError) -> CallError:
    """The error of a call that got no response."""
    endpoint = f"{call.method} {call.path}"
    if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
        return TimedOutError(f"{endpoint}: no answer in time; allow more, or ask for less")
    return UnavailableError(f"{endpoint}: the service cannot be reached ({error}); is it running?")
