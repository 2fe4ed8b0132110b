"""POST /recommend and POST /recommend/batch."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from random import random
from typing import Any, NamedTuple

import numpy as np
import orjson
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from index.retrieval.boosts import Boost
from index.retrieval.filters import CategoryFilter
from index.retrieval.query import Query
from index.retrieval.rules import Rules
from service.auth.authorization import Permission
from service.errors import EXPECTED_ERRORS, HistoryUnavailableError, invalid_body, to_response
from service.http.recommendations import recommendations
from service.http.request_context import RequestContext, request_context_of
from service.http.responses import json_response
from service.http.schemas.recommend import RecommendBatch, RecommendRequest
from service.http.schemas.seen import SeenFilter, seen_to_read
from service.http.state import ServiceState, set_deadline, state_of
from service.serving.outcome import Outcome, QueryResult

ROUTE = "/recommend"
PERMISSION: Permission = "read"

log = logging.getLogger(__name__)


class StoredHistory(NamedTuple):
    """What is known of a request's user. items: the history, oldest first. seen: of the items that
    the user met, those that are excluded. degraded: whether what is stored could not be read."""

    items: Sequence[str]
    seen: Sequence[str] = ()
    degraded: bool = False


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
    start = time.perf_counter()
    deadline = context.set_deadline(state.settings.deadline_ms / 1000)
    state.engine.admit(deadline)
    history, seen, degraded = await _read_history(state, body)
    history_end = time.perf_counter()
    query = query_of(body, history, seen, state.settings.interest_overlap_sample_rate)
    variants = state.canary.variants_of((body.user_id,))
    result = await state.engine.answer(query, is_disconnected, deadline, variants)
    context.variant = result.variant
    answer = recommendations(result, body.explain, degraded, body.include)
    if result.variant is not None:
        state.canary_quality.record_answer(body.user_id, result.variant, answer["items"])
        state.shadow.compare(body.user_id, query, answer["items"])
    content = orjson.dumps(answer)
    total_s = time.perf_counter() - start
    _observe(state, result, len(history), degraded)
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
    state.engine.admit(deadline)
    valid = [item for item in body.validated if isinstance(item, RecommendRequest)]
    histories = await asyncio.gather(*(_read_history(state, item) for item in valid))
    queries = [
        query_of(item, history, seen, state.settings.interest_overlap_sample_rate)
        for item, (history, seen, _) in zip(valid, histories, strict=True)
    ]
    variants = state.canary.variants_of([item.user_id for item in valid])
    outcomes: list[Outcome] = []
    if queries:
        outcomes = await state.engine.answer_all(
            queries, lambda: _is_disconnected(request), deadline, variants
        )
    valid_outcomes = zip(histories, outcomes, strict=True)
    answers: list[dict[str, Any]] = []
    for item in body.validated:
        if isinstance(item, ValidationError):
            answers.append(to_response(invalid_body(item)).body)
            continue
        (history, _, degraded), outcome = next(valid_outcomes)
        if isinstance(outcome, Exception):
            if not isinstance(outcome, EXPECTED_ERRORS):
                log.error("query failed", exc_info=outcome)
            answers.append(to_response(outcome).body)
            continue
        _observe(state, outcome, len(history), degraded)
        answer = recommendations(outcome, item.explain, degraded, item.include)
        if outcome.variant is not None:
            state.canary_quality.record_answer(item.user_id, outcome.variant, answer["items"])
        answers.append(answer)
    if variants is not None:
        request_context_of(request.scope).variant = ",".join(sorted(set(variants)))
    return json_response({"answers": answers})


async def _read_history(state: ServiceState, body: RecommendRequest) -> StoredHistory:
    stored = await _stored_and_posted(state, body)
    state.metrics.history_sources[_history_source(body, stored.items)].inc()
    return stored


async def _stored_and_posted(state: ServiceState, body: RecommendRequest) -> StoredHistory:
    sequence = body.sequence or []
    if body.user_id is None:
        return StoredHistory(sequence)
    wanted = seen_to_read(body.exclude_seen)
    try:
        items, seen = await state.histories.read_with_seen(body.user_id, wanted)
    except HistoryUnavailableError:
        return StoredHistory(sequence, degraded=True)
    return StoredHistory([*items, *sequence], seen)


def _history_source(body: RecommendRequest, history: Sequence[str]) -> str:
    """The label of re4_history_sources; a stored history that is unavailable does not count."""
    posted = len(body.sequence or ())
    if len(history) > posted:
        return "both" if posted else "stored"
    return "posted" if posted else "none"


def query_of(
    body: RecommendRequest,
    history: Sequence[str],
    seen: Sequence[str] = (),
    overlap_sample_rate: float = 0.0,
) -> Query:
    """seen: items that the user met, of those that the request excludes."""
    categories, exclude = body.categories, body.exclude or ()
    exclude_seen = body.exclude_seen if "exclude_seen" in body.model_fields_set else None
    if isinstance(exclude_seen, SeenFilter):
        exclude, seen, exclude_seen = [*exclude, *seen], (), False
    return Query(
        history,
        body.k,
        exclude_seen,
        exclude,
        CategoryFilter(categories.allow, categories.deny or ()) if categories else None,
        body.diversity,
        body.explain,
        random() < overlap_sample_rate,
        body.filter.compiled() if body.filter else None,
        _rules_of(body),
        seen,
    )


def _rules_of(body: RecommendRequest) -> Rules:
    return Rules(
        [Boost(each.filter.compiled(), each.add) for each in body.boost or ()],
        body.interest_quota,
        body.min_per_category or {},
    )


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
