"""A client of the service, synchronous and asynchronous.

    with Client("http://127.0.0.1:8000", key="re4_...") as client:
        recommendations = client.recommend(RecommendRequest(user_id="anna", k=20))

Requests and responses are the models of service.http.schemas. A failed call raises a CallError. An
idempotent call is retried if the service is unavailable or the connection breaks: after the time
that the service asks for, if any, and an exponential backoff with jitter.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import httpx
from tenacity import (
    AsyncRetrying,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_exception,
    wait_exponential_jitter,
)

from service.client import operations
from service.client.operations import (
    Call,
    CallError,
    ConflictError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    RateLimitedError,
    Result,
    TimedOutError,
    UnauthorizedError,
    UnavailableError,
)
from service.http.schemas.availability import AvailabilitiesNow, AvailabilityNow, WithdrawnPage
from service.http.schemas.canary import CanaryReport
from service.http.schemas.histories import Accepted, Forgotten, History
from service.http.schemas.items import SimilarItems
from service.http.schemas.operations import Ready, ReleaseState, Reloaded
from service.http.schemas.recommend import Recommendations, RecommendedBatch, RecommendRequest
from service.http.schemas.seen import SeenFilter
from service.http.schemas.shown import FrequencyCap
from service.store.events import Event

__all__ = [
    "AsyncClient",
    "CallError",
    "Client",
    "ConflictError",
    "Event",
    "ForbiddenError",
    "FrequencyCap",
    "InvalidRequestError",
    "NotFoundError",
    "RateLimitedError",
    "RecommendRequest",
    "SeenFilter",
    "TimedOutError",
    "UnauthorizedError",
    "UnavailableError",
]

TIMEOUT_S = 2.0
RETRIES = 2
_FIRST_BACKOFF_S = 0.1  # doubled with each retry
_JITTER_S = 0.25  # so that the clients of a service that was overloaded do not all return at once
_MAX_WAIT_S = 30.0


class Client:
    """The synchronous client. Several threads may share one."""

    def __init__(
        self,
        url: str,
        key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        retries: int = RETRIES,
        **http: Any,
    ) -> None:
        """timeout_s: of each attempt; also sent to the service as the request's deadline.

        retries: attempts after the first. http: other arguments of httpx.Client.
        """
        self._client = httpx.Client(**_http(url, key, timeout_s), **http)
        self._retrying = Retrying(**_policy(retries))

    def recommend(self, request: RecommendRequest) -> Recommendations:
        """The best items for a user or a sequence."""
        return self._send(operations.recommend(request))

    def recommend_all(self, requests: Sequence[RecommendRequest]) -> RecommendedBatch:
        """The best items for each of 1 to 256 requests, in their order, from one release.

        In the place of a request that fails is an ErrorBody.
        """
        return self._send(operations.recommend_all(requests))

    def similar(self, item_id: str, k: int = 50) -> SimilarItems:
        """The items nearest to an item."""
        return self._send(operations.similar(item_id, k))

    def add(self, *events: Event) -> Accepted:
        """Add 1 to 1,000 events to their users' histories.

        Retried only if each has an event_id, by which the service finds duplicates.
        """
        return self._send(operations.add(events))

    def history(self, user_id: str) -> History:
        """The user's newest items."""
        return self._send(operations.history(user_id))

    def forget(self, user_id: str) -> Forgotten:
        """Delete the user's history, for the next training too. Needs the role erase."""
        return self._send(operations.forget(user_id))

    def set_available(self, item_id: str, available: bool) -> AvailabilityNow:
        """Withdraw an item from all responses, or allow it again. Needs the role catalog."""
        return self._send(operations.set_available(item_id, available))

    def set_all_available(self, items: Mapping[str, bool]) -> AvailabilitiesNow:
        """As set_available, for 1 to 1,000 items: id -> whether it is available."""
        return self._send(operations.set_all_available(items))

    def withdrawn(self, after: str = "", limit: int = 1000) -> WithdrawnPage:
        """Withdrawn items after an id; `next` of the page is the `after` of the next page."""
        return self._send(operations.withdrawn(after, limit))

    def ready(self) -> Ready:
        """Whether the service accepts requests. Raises UnavailableError if it does not."""
        return self._send(operations.ready())

    def release(self) -> ReleaseState:
        """The release in use, and why the last one that failed was not loaded."""
        return self._send(operations.release())

    def canary(self) -> CanaryReport:
        """The canary, and its live quality beside that of the live release."""
        return self._send(operations.canary())

    def reload(self) -> Reloaded:
        """Load the current release now. Needs the role admin."""
        return self._send(operations.reload())

    def _send(self, call: Call[Result]) -> Result:
        # A copy, because a Retrying holds the state of one call.
        return (
            self._retrying.copy()(self._attempt, call) if call.idempotent else self._attempt(call)
        )

    def _attempt(self, call: Call[Result]) -> Result:
        try:
            response = self._client.request(
                call.method, call.path, content=call.body, params=call.params
            )
        except httpx.TransportError as error:
            raise operations.transport_error(call, error) from error
        return call.parse(response)

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient:
    """The asynchronous client: the same methods, awaited."""

    def __init__(
        self,
        url: str,
        key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        retries: int = RETRIES,
        **http: Any,
    ) -> None:
        self._client = httpx.AsyncClient(**_http(url, key, timeout_s), **http)
        self._retrying = AsyncRetrying(**_policy(retries))

    async def recommend(self, request: RecommendRequest) -> Recommendations:
        return await self._send(operations.recommend(request))

    async def recommend_all(self, requests: Sequence[RecommendRequest]) -> RecommendedBatch:
        return await self._send(operations.recommend_all(requests))

    async def similar(self, item_id: str, k: int = 50) -> SimilarItems:
        return await self._send(operations.similar(item_id, k))

    async def add(self, *events: Event) -> Accepted:
        return await self._send(operations.add(events))

    async def history(self, user_id: str) -> History:
        return await self._send(operations.history(user_id))

    async def forget(self, user_id: str) -> Forgotten:
        return await self._send(operations.forget(user_id))

    async def set_available(self, item_id: str, available: bool) -> AvailabilityNow:
        return await self._send(operations.set_available(item_id, available))

    async def set_all_available(self, items: Mapping[str, bool]) -> AvailabilitiesNow:
        """As set_available, for 1 to 1,000 items: id -> whether it is available."""
        return await self._send(operations.set_all_available(items))

    async def withdrawn(self, after: str = "", limit: int = 1000) -> WithdrawnPage:
        """Withdrawn items after an id; `next` of the page is the `after` of the next page."""
        return await self._send(operations.withdrawn(after, limit))

    async def ready(self) -> Ready:
        return await self._send(operations.ready())

    async def release(self) -> ReleaseState:
        return await self._send(operations.release())

    async def canary(self) -> CanaryReport:
        return await self._send(operations.canary())

    async def reload(self) -> Reloaded:
        return await self._send(operations.reload())

    async def _send(self, call: Call[Result]) -> Result:
        if call.idempotent:
            return await self._retrying.copy()(self._attempt, call)
        return await self._attempt(call)

    async def _attempt(self, call: Call[Result]) -> Result:
        try:
            response = await self._client.request(
                call.method, call.path, content=call.body, params=call.params
            )
        except httpx.TransportError as error:
            raise operations.transport_error(call, error) from error
        return call.parse(response)

    async def close(self) -> None:
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _http(url: str, key: str | None, timeout_s: float) -> dict[str, Any]:
    headers = {"content-type": "application/json", "x-deadline-ms": f"{timeout_s * 1e3:.0f}"}
    if key is not None:
        headers["authorization"] = f"Bearer {key}"
    return {"base_url": url, "headers": headers, "timeout": timeout_s}


def _policy(retries: int) -> dict[str, Any]:
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
