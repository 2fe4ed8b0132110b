"""The parts of the running service, as the endpoints come to them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from service.auth.authorization import Authorizer
from service.errors import to_response
from service.http.request_context import request_context_of
from service.serving.batching import Engine
from service.serving.release_loader import ReleaseLoader
from service.settings import Settings
from service.store.availability import WithdrawnItems
from service.store.cold_start import ColdStartItems
from service.store.histories import HistoryStore
from service.store.redis_client import ResilientRedis
from service.telemetry.metrics import Metrics

if TYPE_CHECKING:  # it is there with its extra alone
    from service.telemetry.tracing import Tracing


@dataclass
class Service:
    """All that the endpoints need, made once for each app."""

    settings: Settings
    metrics: Metrics
    live: ReleaseLoader
    engine: Engine
    redis: ResilientRedis
    history: HistoryStore
    withdrawn: WithdrawnItems
    newcomers: ColdStartItems
    door: Authorizer
    tracing: "Tracing | None" = None
    draining: bool = False

    def sheds(self, under_way: int) -> bool:
        """Whether one more request for the engine is to be refused before it is looked at."""
        return self.engine.is_full(under_way) and not self.draining


def service_of(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def deadline_of(request: Request) -> float:
    """When this request is to be answered, on the clock of time.perf_counter; later it is refused.

    Raises InvalidBodyError for a header that says it wrongly.
    """
    deadline_s = service_of(request).settings.deadline_ms / 1000
    return request_context_of(request.scope).answer_within(deadline_s)


def error_response(error: Exception) -> Response:
    """What a client is told of it, whatever it is."""
    told = to_response(error)
    return json_response(told.body, told.status, told.headers)


def json_response(
    content: Any, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    return Response(orjson.dumps(content), status, headers, media_type="application/json")
