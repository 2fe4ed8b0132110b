"""The endpoints: what each does with a request that is already valid."""

import hmac
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from index.release import Release
from index.retriever import Query
from service.engine import Engine, Served
from service.errors import HistoryUnavailableError, NotReadyError, UnauthorizedError
from service.history import HistoryStore
from service.live import Failure, LiveRelease
from service.metrics import Metrics
from service.schemas import Event, EventOrEvents, RecommendRequest
from service.settings import Settings

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


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


async def recommend(request: Request, asked: RecommendRequest) -> Response:
    """The best items for a user or a sequence; popular ones where neither says anything."""
    start = time.perf_counter()
    service = service_of(request)
    service.engine.admit()
    history, degraded = await _history(service, asked)
    read = time.perf_counter()
    query = Query(history, asked.k, asked.exclude_seen)
    served = await service.engine.answer(query, lambda: _is_gone(request))
    content = _recommendations(served, degraded)
    body = orjson.dumps(content)
    total = time.perf_counter() - start
    _observe(service.metrics, served, degraded, read - start, total)
    timing = _server_timing(served, read - start, total)
    return Response(body, 200, {"server-timing": timing}, media_type="application/json")


async def _history(service: Service, asked: RecommendRequest) -> tuple[Sequence[str], bool]:
    """The history to answer for, oldest first, and whether the stored part of it is missing."""
    sequence = asked.sequence or []
    if asked.user_id is None:
        return sequence, False
    try:
        return [*await service.history.read(asked.user_id), *sequence], False
    except HistoryUnavailableError:
        return sequence, True


def _is_gone(request: Request) -> bool:
    """Whether the client has hung up: a step of `receive`, which else would wait for just that."""
    step = request.receive()
    try:
        step.send(None)  # type: ignore[attr-defined]
    except StopIteration as message:
        return bool(message.value["type"] == "http.disconnect")
    finally:
        step.close()  # type: ignore[attr-defined]
    return False


def _recommendations(served: Served, degraded: bool) -> dict[str, Any]:
    answer = served.answer
    catalog = served.release.retriever.catalog
    # One loop in C over ids that lie all about in memory: the processor fetches several at a time.
    ids = list(map(catalog.ids.__getitem__, (answer.rows - 1).tolist()))
    personal = answer.source == "interests"
    interests = answer.interests.tolist() if personal else [None] * len(ids)
    return {
        "items": [
            {"item_id": item_id, "score": score, "interest": interest}
            for item_id, score, interest in zip(ids, answer.scores.tolist(), interests, strict=True)
        ],
        "release": served.release.id,
        "source": answer.source,
        "degraded": degraded,
        "unknown_items": answer.unknown,
    }


def _observe(
    metrics: Metrics, served: Served, degraded: bool, history_s: float, total_s: float
) -> None:
    metrics.answers[served.answer.source].inc()
    metrics.history_s.observe(history_s)
    metrics.total_s.observe(total_s)
    if degraded:
        metrics.degraded.inc()
    if served.answer.unknown:
        metrics.unknown_items.inc(served.answer.unknown)


def _server_timing(served: Served, history_s: float, total_s: float) -> str:
    """Milliseconds; encode, search and merge are of the whole batch, as that is what one waits."""
    timings = served.timings
    return (
        f"history;dur={history_s * 1e3:.3f}, queue;dur={served.queue * 1e3:.3f}, "
        f"encode;dur={timings.encode * 1e3:.3f}, search;dur={timings.search * 1e3:.3f}, "
        f"merge;dur={timings.merge * 1e3:.3f}, total;dur={total_s * 1e3:.3f}"
    )


async def events(request: Request, posted: EventOrEvents) -> Response:
    """Add one event, or a list of them, to their users' histories and to the log."""
    batch = [posted] if isinstance(posted, Event) else posted
    await service_of(request).history.append(batch)
    return json_response({"accepted": len(batch)})


async def livez(request: Request) -> Response:
    """The process answers. Depends on nothing else."""
    return json_response({"status": "alive"})


async def readyz(request: Request) -> Response:
    """Whether to send requests here: a release is loaded, and the process is not about to end."""
    service = service_of(request)
    if service.draining:
        raise NotReadyError("server: is about to end; send requests elsewhere")
    if service.live.release is None:
        raise NotReadyError("release: none is loaded yet; GET /release says why")
    history = "ok" if service.history.up else "degraded"
    return json_response(
        {"status": "ready", "release": service.live.release.id, "history": history}
    )


async def metrics(request: Request) -> Response:
    """Everything that is counted and timed, for Prometheus."""
    return Response(service_of(request).metrics.text(), media_type=METRICS_TYPE)


async def release(request: Request) -> Response:
    """The release in use, and what was wrong with the last that could not be loaded."""
    live = service_of(request).live
    return json_response(
        {
            "release": _facts(live.release, live) if live.release else None,
            "last_reload_error": _failure(live.failure) if live.failure else None,
        }
    )


_INDEX = {"spec", "recall", "k", "microseconds"}


def _facts(release: Release, live: LiveRelease) -> dict[str, Any]:
    manifest = release.manifest
    return {
        "id": manifest.id,
        "created": manifest.created.isoformat(),
        "parent": manifest.parent,
        "loaded_at": live.loaded_at.isoformat() if live.loaded_at else None,
        "encoder": manifest.encoder.name,
        "interests": release.retriever.encoder.interests,
        "items": len(release.retriever.catalog),
        "index": manifest.index.model_dump(mode="json", include=_INDEX) if manifest.index else None,
        "data": manifest.data.model_dump(mode="json"),
        "metrics": manifest.metrics,
    }


def _failure(failure: Failure) -> dict[str, Any]:
    return {
        "release": failure.pointer.id,
        "message": failure.message,
        "failed_at": failure.failed_at.isoformat(),
        "attempts": failure.attempts,
    }


async def reload(request: Request) -> Response:
    """Load what `current` names now, without waiting for the next look at it."""
    service = service_of(request)
    key = service.settings.admin_key
    assert key is not None, "the route is there without a key; this is a bug"
    given = request.headers.get("authorization", "").encode("latin-1")
    if not hmac.compare_digest(given, b"Bearer " + key.get_secret_value().encode()):
        raise UnauthorizedError("authorization: not the admin key; send it as a bearer token")
    changed = await service.live.refresh(now=True)
    if service.live.release is None:
        raise NotReadyError("release: none is published; run: python -m index publish DRAFT")
    return json_response({"release": service.live.release.id, "changed": changed})
