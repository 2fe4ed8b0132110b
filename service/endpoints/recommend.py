"""POST /recommend."""

import time
from collections.abc import Sequence
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from index.retriever import Query
from service.engine import Served
from service.errors import HistoryUnavailableError
from service.metrics import Metrics
from service.parts import Service, service_of
from service.schemas.recommend import RecommendRequest


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
