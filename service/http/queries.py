"""What is read for a request, and the query that is made of both."""

from collections.abc import Sequence
from math import nan
from random import random
from time import time
from typing import NamedTuple

from index.retrieval.boosts import Boost
from index.retrieval.filters import CategoryFilter
from index.retrieval.query import Query
from index.retrieval.rules import Rules
from service.errors import HistoryUnavailableError
from service.http.schemas.recommend import RecommendRequest
from service.http.schemas.seen import SeenFilter, seen_to_read
from service.http.state import ServiceState
from service.store.cursors import Cursor


class Stored(NamedTuple):
    """What is known of a request's user.

    history: the stored and the posted, oldest first. seen: of the items that the user met, those
    that are excluded. shown: items that a cap or earlier pages exclude. cursor: of the page before.
    degraded: whether what is stored of the user could not be read. times: of the history's events,
    in Unix seconds, NaN where unknown; None if none is known.
    """

    history: Sequence[str]
    seen: Sequence[str] = ()
    shown: Sequence[str] = ()
    cursor: Cursor | None = None
    degraded: bool = False
    times: Sequence[float] | None = None


async def read_stored(state: ServiceState, body: RecommendRequest) -> Stored:
    """Raises InvalidRequestError for a cursor that expired, HistoryUnavailableError if what the
    pages before it had cannot be read."""
    stored = await look_up(state, body, state.reads_times)
    state.metrics.history_sources[_history_source(body, stored.history)].inc()
    return stored


async def look_up(state: ServiceState, body: RecommendRequest, reads_times: bool) -> Stored:
    """The same for a request that is not counted, as no client gets its answer.

    reads_times: whether a release that is asked reads the times of a history.
    """
    stored = await _read_user(state, body, reads_times)
    if body.cursor is not None:
        cursor = Cursor.of(body.cursor)
        shown = [*stored.shown, *await state.impressions.pages.shown(cursor)]
        stored = stored._replace(cursor=cursor, shown=shown)
    return stored


async def _read_user(state: ServiceState, body: RecommendRequest, reads_times: bool) -> Stored:
    posted = Stored(body.sequence or [], times=_posted_times(body))
    if body.user_id is None:
        return posted
    cap = body.frequency_cap.allowed() if body.frequency_cap else None
    seen = seen_to_read(body.exclude_seen)
    try:
        user = await state.histories.read_user(body.user_id, seen, cap, reads_times)
    except HistoryUnavailableError:
        return posted._replace(degraded=True)
    times = None
    if user.times is not None:
        times = [*user.times, *(posted.times or [nan] * len(posted.history))]
    return Stored([*user.history, *posted.history], user.seen, user.shown, times=times)


def _posted_times(body: RecommendRequest) -> list[float] | None:
    if body.timestamps is None:
        return None
    return [nan if moment is None else moment for moment in body.timestamps]


def _history_source(body: RecommendRequest, history: Sequence[str]) -> str:
    """The label of re4_history_sources; a stored history that is unavailable does not count."""
    posted = len(body.sequence or ())
    if len(history) > posted:
        return "both" if posted else "stored"
    return "posted" if posted else "none"


def query_of(
    body: RecommendRequest,
    stored: Stored,
    overlap_sample_rate: float = 0.0,
    min_new_items: int = 0,
) -> Query:
    """min_new_items: of a request that does not say, as far as it has room for them."""
    categories, exclude, seen = body.categories, body.exclude or (), stored.seen
    exclude_seen = body.exclude_seen if "exclude_seen" in body.model_fields_set else None
    if isinstance(exclude_seen, SeenFilter):
        exclude, seen, exclude_seen = [*exclude, *seen], (), False
    if stored.shown:
        exclude = [*exclude, *stored.shown]
    return Query(
        stored.history,
        body.k,
        exclude_seen,
        exclude,
        CategoryFilter(categories.allow, categories.deny or ()) if categories else None,
        body.diversity,
        body.explain,
        random() < overlap_sample_rate,
        body.filter.compiled() if body.filter else None,
        _rules_of(body, min_new_items),
        seen,
        _ages(stored.times),
    )


def _ages(times: Sequence[float] | None) -> list[float] | None:
    """Seconds from each time to now."""
    if times is None:
        return None
    now = time()
    return [now - moment for moment in times]


def _rules_of(body: RecommendRequest, min_new_items: int) -> Rules:
    if (least := body.min_new_items) is None:
        least = min(min_new_items, body.k - sum((body.min_per_category or {}).values()))
    return Rules(
        [Boost(each.filter.compiled(), each.add) for each in body.boost or ()],
        body.interest_quota,
        body.min_per_category or {},
        least,
    )
