"""The state of the running service, as the endpoints access it."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.requests import Request

from service.auth.authorization import Authorizer
from service.http.cross_origin import CrossOrigin
from service.http.host_check import AllowedHosts
from service.http.request_context import request_context_of
from service.http.shadow import Shadow
from service.serving.batching import Engine
from service.serving.canary import CanaryLoader
from service.serving.canary_quality import CanaryQuality
from service.serving.release_loader import ReleaseLoader
from service.settings import Settings
from service.store.availability import ItemAvailability
from service.store.cold_start import ColdStartItems
from service.store.histories import HistoryStore
from service.store.redis_client import ResilientRedis
from service.telemetry.metrics import Metrics

if TYPE_CHECKING:  # needs the extra `tracing`
    from service.telemetry.tracing import Tracing


@dataclass
class ServiceState:
    """The components that the endpoints use, created once for each app."""

    settings: Settings
    metrics: Metrics
    live: ReleaseLoader
    canary: CanaryLoader
    canary_quality: CanaryQuality
    shadow: Shadow
    engine: Engine
    redis: ResilientRedis
    histories: HistoryStore
    availability: ItemAvailability
    cold_start_items: ColdStartItems
    canary_items: ColdStartItems
    authorizer: Authorizer
    hosts: AllowedHosts | None = None
    cross_origin: CrossOrigin | None = None
    tracing: "Tracing | None" = None
    draining: bool = False
    # For load shedding: a plain head -> length of the body that it announces, and the response.
    plain_heads: dict[bytes, tuple[int, bytes]] = field(default_factory=dict)

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
