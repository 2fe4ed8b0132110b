"""The parts of the running service, as the endpoints come to them."""

from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from service.engine import Engine
from service.history import HistoryStore
from service.live import LiveRelease
from service.metrics import Metrics
from service.settings import Settings


@dataclass
class Service:
    """All that the endpoints need, made once for each app."""

    settings: Settings
    metrics: Metrics
    live: LiveRelease
    engine: Engine
    history: HistoryStore
    draining: bool = False


def service_of(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def json_response(
    content: Any, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    return Response(orjson.dumps(content), status, headers, media_type="application/json")
