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
from tenacity import AsyncRetrying, Retrying

from service.client import operations
from service.client.connection import RETRIES, TIMEOUT_S, http_options, retry_policy
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
from service.http.schemas.availability import (
    AvailabilitiesNow,
    AvailabilityNow,
    ItemChange,
    NamedItemChange,
    WithdrawnPage,
)
from service.http.schemas.canary import CanaryReport
from service.http.schemas.histories import Accepted, Forgotten, History
from service.http.schemas.items import Item, SimilarItems
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
    "ItemChange",
    "NamedItemChange",
    "NotFoundError",
    "RateLimitedError",
    "RecommendRequest",
    "SeenFilter",
    "TimedOutError",
    "UnauthorizedError",
    "UnavailableError",
]


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
        self._client = httpx.Client(**http_options(url, key, timeout_s), **http)
        self._retrying = Retrying(**retry_policy(retries))

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

    def item(self, item_id: str) -> Item:
        """An item: title, categories, attributes, and whether it is available."""
        return self._send(operations.item(item_id))

    def change(self, item_id: str, to: ItemChange) -> AvailabilityNow:
        """Change what `to` names. Needs the role catalog."""
        return self._send(operations.change(item_id, to))

    def change_all(self, *items: NamedItemChange) -> AvailabilitiesNow:
        """As change, for 1 to 1,000 items."""
        return self._send(operations.change_all(items))

    def set_available(self, item_id: str, available: bool) -> AvailabilityNow:
        """Withdraw an item from all responses, or allow it again. Needs the role catalog."""
        return self._send(operations.set_available(item_id, available))

    def set_all_available(self, items: Mapping[str, bool]) -> AvailabilitiesNow:
        """As set_available, for 1 to 1,000 items: id -> whether it is available."""
        return self._send(operations.set_all_available(items))

    def withdrawn(self, after: str = "", limit: int = 1000, cursor: str = "") -> WithdrawnPage:
        """Withdrawn items after an id, or from the `cursor` of a page on."""
        return self._send(operations.withdrawn(after, limit, cursor))

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
        self._client = httpx.AsyncClient(**http_options(url, key, timeout_s), **http)
        self._retrying = AsyncRetrying(**retry_policy(retries))

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

    async def item(self, item_id: str) -> Item:
        return await self._send(operations.item(item_id))

    async def change(self, item_id: str, to: ItemChange) -> AvailabilityNow:
        return await self._send(operations.change(item_id, to))

    async def change_all(self, *items: NamedItemChange) -> AvailabilitiesNow:
        return await self._send(operations.change_all(items))

    async def set_available(self, item_id: str, available: bool) -> AvailabilityNow:
        return await self._send(operations.set_available(item_id, available))

    async def set_all_available(self, items: Mapping[str, bool]) -> AvailabilitiesNow:
        return await self._send(operations.set_all_available(items))

    async def withdrawn(
        self, after: str = "", limit: int = 1000, cursor: str = ""
    ) -> WithdrawnPage:
        return await self._send(operations.withdrawn(after, limit, cursor))

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
