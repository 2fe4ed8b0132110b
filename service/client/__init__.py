"""A client of the service, for programs that wait and for programs that await.

    with Client("http://127.0.0.1:8000", key="re4_...") as client:
        answer = client.recommend(RecommendRequest(user_id="anna", k=20))

Requests and answers are the models of service.schemas. Whatever is no answer is a CallError. A call
that may be sent twice is sent again where the service refuses it for now, once the time is over
that it asks for, or where the connection breaks.
"""

import random
from collections.abc import Sequence
from typing import Any, Self

import httpx
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
)

from service.client import operations as calls
from service.client.operations import Answer, Call, UnavailableError
from service.http.schemas.availability import AvailabilityNow
from service.http.schemas.histories import Accepted, Forgotten, History
from service.http.schemas.items import SimilarItems
from service.http.schemas.operations import Ready, ReleaseState, Reloaded
from service.http.schemas.recommend import Recommendations, RecommendedBatch, RecommendRequest
from service.store.events import Event

TIMEOUT_S = 2.0
RETRIES = 2
_FIRST_WAIT_S = 0.1  # where the service does not say
_LONGEST_WAIT_S = 30.0


class Client:
    """Waits for its answers. Several threads may share one."""

    def __init__(
        self,
        url: str,
        key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        retries: int = RETRIES,
        **http: Any,
    ) -> None:
        """timeout_s: for each try, in which the service is told to answer, too.

        retries: tries beyond the first. http: whatever else httpx.Client takes.
        """
        self._client = httpx.Client(**_http(url, key, timeout_s), **http)
        self._retrying = Retrying(**_policy(retries))

    def recommend(self, asked: RecommendRequest) -> Recommendations:
        """The best items for a user or a sequence."""
        return self._send(calls.recommend(asked))

    def recommend_all(self, asked: Sequence[RecommendRequest]) -> RecommendedBatch:
        """Answers to 1 to 256 requests, in their order, by one release.

        What is wrong with one of them stands in its place, as an ErrorBody.
        """
        return self._send(calls.recommend_all(asked))

    def similar(self, item_id: str, k: int = 50) -> SimilarItems:
        """The items nearest to one."""
        return self._send(calls.similar(item_id, k))

    def add(self, *events: Event) -> Accepted:
        """Add 1 to 1,000 events to their users' histories.

        Sent again only if each has an event_id, by which none is taken twice.
        """
        return self._send(calls.add(events))

    def history(self, user_id: str) -> History:
        """The user's newest items."""
        return self._send(calls.history(user_id))

    def forget(self, user_id: str) -> Forgotten:
        """Delete the user's history; the next training leaves it out, too."""
        return self._send(calls.forget(user_id))

    def set_available(self, item_id: str, available: bool) -> AvailabilityNow:
        """Withdraw an item from all answers, or end that. Takes a key of the role events."""
        return self._send(calls.set_available(item_id, available))

    def ready(self) -> Ready:
        """Whether to send requests: an UnavailableError if not."""
        return self._send(calls.ready())

    def release(self) -> ReleaseState:
        """The release in use, and why the last that failed to load was refused."""
        return self._send(calls.release())

    def reload(self) -> Reloaded:
        """Load the newest release now. Takes a key of the role admin."""
        return self._send(calls.reload())

    def _send(self, call: Call[Answer]) -> Answer:
        # A copy, as it holds the state of the one call that it is used for.
        return self._retrying.copy()(self._try, call) if call.again else self._try(call)

    def _try(self, call: Call[Answer]) -> Answer:
        try:
            response = self._client.request(
                call.method, call.path, content=call.body, params=call.params
            )
        except httpx.TransportError as error:
            raise calls.broken(call, error) from error
        return call.read(response)

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient:
    """The same for programs that await their answers."""

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

    async def recommend(self, asked: RecommendRequest) -> Recommendations:
        return await self._send(calls.recommend(asked))

    async def recommend_all(self, asked: Sequence[RecommendRequest]) -> RecommendedBatch:
        return await self._send(calls.recommend_all(asked))

    async def similar(self, item_id: str, k: int = 50) -> SimilarItems:
        return await self._send(calls.similar(item_id, k))

    async def add(self, *events: Event) -> Accepted:
        return await self._send(calls.add(events))

    async def history(self, user_id: str) -> History:
        return await self._send(calls.history(user_id))

    async def forget(self, user_id: str) -> Forgotten:
        return await self._send(calls.forget(user_id))

    async def set_available(self, item_id: str, available: bool) -> AvailabilityNow:
        return await self._send(calls.set_available(item_id, available))

    async def ready(self) -> Ready:
        return await self._send(calls.ready())

    async def release(self) -> ReleaseState:
        return await self._send(calls.release())

    async def reload(self) -> Reloaded:
        return await self._send(calls.reload())

    async def _send(self, call: Call[Answer]) -> Answer:
        return await (self._retrying.copy()(self._try, call) if call.again else self._try(call))

    async def _try(self, call: Call[Answer]) -> Answer:
        try:
            response = await self._client.request(
                call.method, call.path, content=call.body, params=call.params
            )
        except httpx.TransportError as error:
            raise calls.broken(call, error) from error
        return call.read(response)

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
        "wait": _wait_s,
        "retry": retry_if_exception(_may_soon_succeed),
        "reraise": True,
    }


def _may_soon_succeed(error: BaseException) -> bool:
    return isinstance(error, UnavailableError) and (error.retry_after_s or 0) <= _LONGEST_WAIT_S


def _wait_s(state: RetryCallState) -> float:
    """What the service asks for, and a little more: not all are to come back at the same time."""
    error = state.outcome and state.outcome.exception()
    asked_s = error.retry_after_s if isinstance(error, UnavailableError) else None
    return (_FIRST_WAIT_S if asked_s is None else asked_s) * random.uniform(1, 1.25)
