"""POST /recommend and POST /recommend/batch."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import orjson
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from index.retrieval.query import Query
from service.auth.authorization import Permission
from service.errors import EXPECTED_ERRORS, invalid_body, to_response
from service.http.attribute_names import note_unknown_attributes
from service.http.impressions import note_shown
from service.http.queries import Stored, query_of, read_stored
from service.http.recommendations import recommendations
from service.http.request_context import RequestContext, request_context_of
from service.http.responses import json_response
from service.http.schemas.recommend import RecommendBatch, RecommendRequest
from service.http.state import ServiceState, set_deadline, state_of
from service.serving.outcome import Outcome, QueryResult

ROUTE = "/recommend"
PERMISSION: Permission = "read"

log = logging.getLogger(__name__)


async def recommend(request: Request, body: RecommendRequest) -> Response:
    """The best items for a user or a sequence; popular items if no interests are known."""
    content, timing = await recommended(
        state_of(request),
        request_context_of(request.scope),
        body,
        lambda: _is_disconnected(request),
    )
    return Response(content, 200, {"server-timing": timing}, media_type="application/json")


async def recommended(
    state: ServiceState,
    context: RequestContext,
    body: RecommendRequest,
    is_disconnected: Callable[[], bool],
) -> tuple[bytes, str]:
    """The body of the answer, and its Server-Timing. Raises the errors of the endpoint."""
    start, settings = time.perf_counter(), state.settings
    deadline = context.set_deadline(settings.deadline_ms / 1000)
    state.engine.admit(deadline)
    stored = await read_stored(state, body)
    history_end = time.perf_counter()
    query = query_of(body, stored, settings.interest_overlap_sample_rate, settings.min_new_items)
    variants = state.canary.variants_of((body.user_id,))
    result = await state.engine.answer(query, is_disconnected, deadline, variants)
    context.variant = result.variant
    answer = recommendations(result, body.explain, stored.degraded, body.include)
    note_unknown_attributes(state, body, answer)
    await note_shown(state, body, stored.cursor, answer)
    state.quality.record_answer(body.user_id, result.release.id, result.variant, answer)
    if result.variant is not None:
        state.shadow.compare(body.user_id, query, answer["items"])
    content = orjson.dumps(answer)
    total_s = time.perf_counter() - start
    _observe(state, result, len(stored.history), answer["degraded"])
    state.metrics.history_s.observe(history_end - start)
    state.metrics.total_s.observe(total_s)
    if context.stages is not None:
        context.stages += _stages(result, start, history_end)
    return content, _server_timing(result, history_end - start, total_s)


async def batch(request: Request, body: RecommendBatch) -> Response:
    """Recommendations for several requests, or an error for each invalid one.

    All are from one release, unless a canary answers some of the users.
    """
    state, deadline = state_of(request), set_deadline(request)
    settings = state.settings
    state.engine.admit(deadline)
    valid = [item for item in body.validated if isinstance(item, RecommendRequest)]
    read = await asyncio.gather(*(_read_or_error(state, item) for item in valid))
    asked = [
        (item, stored)
        for item, stored in zip(valid, read, strict=True)
        if isinstance(stored, Stored)
    ]
    queries = [
        query_of(item, stored, settings.interest_overlap_sample_rate, settings.min_new_items)
        for item, stored in asked
    ]
    variants = state.canary.variants_of([item.user_id for item, _ in asked])
    outcomes: list[Outcome] = []
    if queries:
        outcomes = await state.engine.answer_all(
            queries, lambda: _is_disconnected(request), deadline, variants
        )
    if variants is not None:
        request_context_of(request.scope).variant = ",".join(sorted(set(variants)))
    entries, remaining = iter(read), zip(queries, outcomes, strict=True)
    answers = []
    for item in body.validated:
        if isinstance(item, ValidationError):
            answers.append(_error_entry(invalid_body(item)))
        elif isinstance(stored := next(entries), Stored):
            answers.append(_entry(state, item, stored, *next(remaining)))
        else:
            answers.append(_error_entry(stored))
    return json_response({"answers": await asyncio.gather(*answers)})


async def _read_or_error(state: ServiceState, body: RecommendRequest) -> Stored | Exception:
    try:
        return await read_stored(state, body)
    except EXPECTED_ERRORS as error:
        return error


async def _entry(
    state: ServiceState, body: RecommendRequest, stored: Stored, query: Query, outcome: Outcome
) -> dict[str, Any]:
    """Of a batch: the answer to one request, or its error."""
    if isinstance(outcome, Exception):
        if not isinstance(outcome, EXPECTED_ERRORS):
            log.error("query failed", exc_info=outcome)
        return await _error_entry(outcome)
    answer = recommendations(outcome, body.explain, stored.degraded, body.include)
    note_unknown_attributes(state, body, answer)
    await note_shown(state, body, stored.cursor, answer)
    state.quality.record_answer(body.user_id, outcome.release.id, outcome.variant, answer)
    if outcome.variant is not None:
        state.shadow.compare(body.user_id, query, answer["items"])
    _observe(state, outcome, len(stored.history), answer["degraded"])
    return answer


async def _error_entry(error: Exception) -> dict[str, Any]:
    return to_response(error).body


def _is_disconnected(request: Request) -> bool:
    """Whether the client has disconnected: one step of `receive`, without waiting for more."""
    receive = request.receive()
    try:
        receive.send(None)  # type: ignore[attr-defined]
    except StopIteration as message:
        return bool(message.value["type"] == "http.disconnect")
    finally:
        receive.close()  # type: ignore[attr-defined]
    return False


def _observe(state: ServiceState, result: QueryResult, history_length: int, degraded: bool) -> None:
    answer, metrics = result.answer, state.metrics
    metrics.responses[answer.source].inc()
    if result.variant is not None:
        state.canary.metrics.responses.labels(result.variant, answer.source).inc()
    if degraded:
        metrics.degraded_responses.inc()
    if history_length:
        metrics.history_oov_ratio.observe(answer.unknown / history_length)
    if answer.unknown:
        metrics.history_oov_items.inc(answer.unknown)
    has_several_interests = result.release.retriever.encoder.interests > 1
    if has_several_interests and answer.source == "interests" and len(answer.rows):
        metrics.top_interest_share.observe(answer.top_interest_share)
    if result.delta is not None:
        count = int(np.count_nonzero(answer.rows > len(result.release.retriever.catalog)))
        metrics.cold_start_candidates.inc(count)
    if answer.overlap is not None:
        metrics.interest_overlap_ratio.observe(answer.overlap.distinct / answer.overlap.of)


def _stages(
    result: QueryResult, start: float, history_end: float
) -> Iterator[tuple[str, float, float]]:
    """(name, start, end) of each stage. The stages of the batch follow one another."""
    stage_start = history_end + result.queue_s
    yield "history", start, history_end
    yield "queue", history_end, stage_start
    for stage in ("encode", "search", "merge"):
        stage_end = stage_start + getattr(result.timings, stage)
        yield stage, stage_start, stage_end
        stage_start = stage_end


def _server_timing(result: QueryResult, history_s: float, total_s: float) -> str:
    """In milliseconds. Encode, search and merge are of the whole batch, for which requests wait."""
    timings = result.timings
    return (
        f"history;dur={history_s * 1e3:.3f}, queue;dur={result.queue_s * 1e3:.3f}, "
        f"encode;dur={timings.encode * 1e3:.3f}, search;dur={timings.search * 1e3:.3f}, "
        f"merge;dur={timings.merge * 1e3:.3f}, total;dur={total_s * 1e3:.3f}"
    )
