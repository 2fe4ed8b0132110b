"""The state of the running service, as the endpoints access it."""

import asyncio
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from starlette.requests import Request

from index.release.errors import ReleaseError
from service.auth.authorization import Authorizer
from service.http.cross_origin import CrossOrigin
from service.http.host_check import AllowedHosts
from service.http.request_context import request_context_of
from service.http.shadow import Shadow
from service.serving.batching import Engine
from service.serving.canary import CanaryLoader
from service.serving.canary_quality import CanaryQuality
from service.serving.live_quality import QualityObserver
from service.serving.release_loader import ReleaseLoader
from service.settings import Settings
from service.store.availability import ItemAvailability
from service.store.cold_start import ColdStartItems
from service.store.details_in_use import DetailsInUse
from service.store.histories import HistoryStore
from service.store.impressions import Impressions
from service.store.redis_client import ResilientRedis
from service.telemetry.metrics import Metrics

if TYPE_CHECKING:  # needs the extra `tracing`
    from service.telemetry.tracing import Tracing


# A plain head -> length of the body that it announces, the response, and who would answer.
PlainHeads: TypeAlias = "dict[bytes, tuple[int, bytes, ServiceState]]"


@dataclass
class ServiceState:
    """The components that the endpoints use, created once for each app.

    parts: by the path under which it is served, whose requests arrive at the connections; a
    single service is all of them. See service.http.tenants for several.
    """

    settings: Settings
    metrics: Metrics
    live: ReleaseLoader
    canary: CanaryLoader
    quality: QualityObserver
    canary_quality: CanaryQuality
    shadow: Shadow
    engine: Engine
    redis: ResilientRedis
    histories: HistoryStore
    impressions: Impressions
    availability: ItemAvailability
    item_details: DetailsInUse
    cold_start_items: ColdStartItems
    canary_items: ColdStartItems
    authorizer: Authorizer
    hosts: AllowedHosts | None = None
    cross_origin: CrossOrigin | None = None
    tracing: "Tracing | None" = None
    draining: bool = False
    # For load shedding: what is known of the heads of plain requests.
    plain_heads: PlainHeads = field(default_factory=dict)
    # Of several in one process: name, requests under way, and the context that names it in the log.
    tenant: str | None = None
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    context: Context | None = None

    def __post_init__(self) -> None:
        self.parts = {b"": self}

    @property
    def reads_times(self) -> bool:
        """Whether a release in use reads the times of a history."""
        releases = self.live.release, self.canary.release
        return any(each is not None and each.retriever.encoder.reads_gaps for each in releases)

    async def load(self) -> bool:
        """Try to load a release, unless one is there; whether requests can be answered."""
        with suppress(ReleaseError):  # logged, and kept by the loader
            await self.live.refresh()
        return self.live.release is not None

    async def check(self) -> None:
        """Raises SetupError if the service cannot be used with its settings."""
        await self.redis.start()

    def sheds_load(self, pending_requests: int) -> bool:
        """Whether the next request to the engine is rejected before it is parsed."""
        return self.engine.is_full(pending_requests) and not self.draining


def state_of(request: Request) -> ServiceState:
    state: ServiceState = request.app.state.service
    return state


def set_deadline(request: Request) -> float:
    """Set the request's deadline and return it, on the clock of time.perf_counter.

    Raises InvalidRequestError if the header X-Deadline-Ms is not a number.
    """
    timeout_s = state_of(request).settings.deadline_ms / 1000
    return request_context_of(request.scope).set_deadline(timeout_s)
