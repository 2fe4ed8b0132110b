"""POST /recommend and POST /recommend/batch."""

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence
from random import random
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from index.retrieval.catalog import Catalog
from index.retrieval.delta import Delta
from index.retrieval.filters import CategoryFilter
from index.retrieval.retriever import Answer, Query
from service.errors import HistoryUnavailableError, invalid_body, to_response
from service.http.request_context import request_context_of
from service.http.schemas.recommend import RecommendBatch, RecommendRequest
from service.http.state import Service, deadline_of, json_response, service_of
from service.serving.batching import Outcome, Served
from service.telemetry.metrics import Metrics

log = logging.getLogger(__name__)


async def recommend(request: Request, asked: RecommendRequest) -> Response:
    """The best items for a user or a sequence; popular ones where neither says anything."""
    start = time.perf_counter()
    service, deadline = service_of(request), deadline_of(request)
    service.engine.admit(deadline)
    history, degraded = await _history(service, asked)
    read = time.perf_counter()
    query = _query(asked, history, service.settings.interest_overlap_sample_rate)
    served = await service.engine.answer(query, lambda: _is_gone(request), deadline)
    content = _recommendations(served, asked, degraded)
    body = orjson.dumps(content)
    total = time.perf_counter() - start
    _observe(service.metrics, served, len(history), degraded)
    service.metrics.history_s.observe(read - start)
    service.metrics.total_s.observe(total)
    if (stages := request_context_of(request.scope).stages) is not None:
        stages += _stages(served, start, read)
    timing = _server_timing(served, read - start, total)
    return Response(body, 200, {"server-timing": timing}, media_type="application/json")


async def batch(request: Request, asked: RecommendBatch) -> Response:
    """Answers to several requests by one release; one that is wrong has its error among them."""
    service, deadline = service_of(request), deadline_of(request)
    service.engine.admit(deadline)
    valid = [each for each in asked.checked if isinstance(each, RecommendRequest)]
    histories = await asyncio.gather(*(_history(service, each) for each in valid))
    queries = [
        _query(each, history, service.settings.interest_overlap_sample_rate)
        for each, (history, _) in zip(valid, histories, strict=True)
    ]
    outcomes: list[Outcome] = []
    if queries:
        outcomes = await service.engine.answer_all(queries, lambda: _is_gone(request), deadline)
    told = zip(valid, histories, outcomes, strict=True)
    answers: list[dict[str, Any]] = []
    for each in asked.checked:
        if isinstance(each, ValidationError):
            answers.append(to_response(invalid_body(each)).body)
            continue
        one, (history, degraded), outcome = next(told)
        if isinstance(outcome, Exception):
            log.error("query failed", exc_info=outcome)
            answers.append(to_response(outcome).body)
            continue
        _observe(service.metrics, outcome, len(history), degraded)
        answers.append(_recommendations(outcome, one, degraded))
    return json_response({"answers": answers})


async def _history(service: Service, asked: RecommendRequest) -> tuple[Sequence[str], bool]:
    """The history to answer for, oldest first, and whether the stored part of it is missing."""
    history, degraded = await _read(service, asked)
    service.metrics.histories[_source(asked, history)].inc()
    return history, degraded


async def _read(service: Service, asked: RecommendRequest) -> tuple[Sequence[str], bool]:
    sequence = asked.sequence or []
    if asked.user_id is None:
        return sequence, False
    try:
        return [*await service.history.read(asked.user_id), *sequence], False
    except HistoryUnavailableError:
        return sequence, True


def _source(asked: RecommendRequest, history: Sequence[str]) -> str:
    """Where it is from; of a user whose history is not to be had, from what was posted."""
    posted = len(asked.sequence or ())
    if len(history) > posted:
        return "both" if posted else "stored"
    return "posted" if posted else "none"


def _query(asked: RecommendRequest, history: Sequence[str], union_share: float) -> Query:
    named = asked.categories
    return Query(
        history,
        asked.k,
        asked.exclude_seen,
        asked.exclude or (),
        CategoryFilter(named.allow, named.deny or ()) if named else None,
        asked.diversity,
        asked.explain,
        random() < union_share,
    )


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


def _recommendations(served: Served, asked: RecommendRequest, degraded: bool) -> dict[str, Any]:
    answer = served.answer
    catalog = served.release.retriever.catalog
    ids = _ids(answer.rows, catalog, served.delta)
    personal = answer.source == "interests"
    interests = answer.interests.tolist() if personal else [None] * len(ids)
    content: dict[str, Any] = {
        "items": [
            {"item_id": item_id, "score": score, "interest": interest}
            for item_id, score, interest in zip(ids, answer.scores.tolist(), interests, strict=True)
        ],
        "release": served.release.id,
        "source": answer.source,
        "degraded": degraded,
        "unknown_items": answer.unknown,
    }
    if served.delta is not None:
        for item, row in zip(content["items"], answer.rows.tolist(), strict=True):
            if row > len(catalog):
                item["new"] = True
    if asked.explain:
        _explain(content, answer, catalog, served.delta)
    return content


def _ids(rows: NDArray[np.int64], catalog: Catalog, delta: Delta | None) -> list[str]:
    if delta is None:
        # A loop in C over ids that lie all about in memory: the processor fetches several at once.
        return list(map(catalog.ids.__getitem__, (rows - 1).tolist()))
    return [_id(row, catalog, delta) for row in rows.tolist()]


def _id(row: int, catalog: Catalog, delta: Delta | None) -> str:
    beside = row - len(catalog) - 1
    return delta.ids[beside] if delta is not None and beside >= 0 else catalog.id(row)


def _explain(
    content: dict[str, Any], answer: Answer, catalog: Catalog, delta: Delta | None
) -> None:
    """Add what is known of the interests; nothing where they had no part in the answer."""
    content["interests"] = []
    if (told := answer.explanation) is None:
        return
    for item, scores in zip(content["items"], told.scores.tolist(), strict=True):
        item["scores"] = scores
    content["interests"] = [
        {
            "share": share,
            "attended": [
                {"item_id": _id(row, catalog, delta), "weight": weight} for row, weight in attended
            ],
        }
        for share, attended in zip(told.shares.tolist(), told.attended, strict=True)
    ]


def _observe(metrics: Metrics, served: Served, history_length: int, degraded: bool) -> None:
    answer = served.answer
    metrics.answers[answer.source].inc()
    if degraded:
        metrics.degraded.inc()
    if history_length:
        metrics.unknown_share.observe(answer.unknown / history_length)
    if answer.unknown:
        metrics.unknown_items.inc(answer.unknown)
    several = served.release.retriever.encoder.interests > 1
    if several and answer.source == "interests" and len(answer.rows):
        metrics.top_interest_share.observe(answer.top_interest_share)
    if served.delta is not None:
        new = int(np.count_nonzero(answer.rows > len(served.release.retriever.catalog)))
        metrics.new_candidates.inc(new)
    if answer.overlap is not None:
        metrics.union_share.observe(answer.overlap.distinct / answer.overlap.of)


def _stages(served: Served, start: float, read: float) -> Iterator[tuple[str, float, float]]:
    """Each with its start and end; those of the batch one after the other."""
    since = read + served.queue
    yield "history", start, read
    yield "queue", read, since
    for stage in ("encode", "search", "merge"):
        end = since + getattr(served.timings, stage)
        yield stage, since, end
        since = end


def _server_timing(served: Served, history_s: float, total_s: float) -> str:
    """Milliseconds; encode, search and merge are of the whole batch, as that is what one waits."""
    timings = served.timings
    return (
        f"history;dur={history_s * 1e3:.3f}, queue;dur={served.queue * 1e3:.3f}, "
        f"encode;dur={timings.encode * 1e3:.3f}, search;dur={timings.search * 1e3:.3f}, "
        f"merge;dur={timings.merge * 1e3:.3f}, total;dur={total_s * 1e3:.3f}"
    )
