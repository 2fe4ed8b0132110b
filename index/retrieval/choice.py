"""The items of an answer: from a pool of the best allowed ones, by rules and diversity."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.retrieval.boosts import unit_of
from index.retrieval.catalog import PADDING
from index.retrieval.diversity import diversify
from index.retrieval.filters import Categories
from index.retrieval.merge import QueryHits, merge_query_hits
from index.retrieval.minimums import with_minimums
from index.retrieval.query import ResolvedQuery
from index.retrieval.quota import within_quota
from index.retrieval.ranking import Rank


class Choice(NamedTuple):
    """The k items, best first, scored with what boosts added (k,); None without boosts."""

    hits: QueryHits
    boosts: NDArray[np.float32] | None


def choose(
    pool: QueryHits, rank: Rank, resolved: ResolvedQuery, categories: Categories, interests: int
) -> Choice:
    """The items of the answer to a query.

    pool: the pool_size best allowed items, best first. rank: further items, for rules. interests:
    how many found them; 0 if they are popular ones.
    """
    if not (resolved.query.rules or resolved.query.diversity):
        return Choice(pool, None)
    return _by_rules(pool, rank, resolved, categories, interests)


def _by_rules(
    pool: QueryHits, rank: Rank, resolved: ResolvedQuery, categories: Categories, interests: int
) -> Choice:
    """As choose, for a query that has rules or diversity."""
    query, rules, boosts = resolved.query, resolved.query.rules, resolved.boosts
    unit = unit_of(pool[1])

    def best(category: str | None, count: int) -> QueryHits:
        allowed = resolved.filter
        if category is not None:
            allowed = allowed.of_category(category)
        if boosts is not None:
            return boosts.best(rank, allowed, count, unit)
        [hits] = rank([allowed], count)
        return hits

    def are_of(rows: NDArray[np.int64], category: str) -> NDArray[np.bool_]:
        return categories.have(_catalog_rows(rows, categories), category)

    if boosts is not None:
        pool = best(None, resolved.chosen_from)
    if rules.interest_quota is not None and interests:
        pool = within_quota(
            pool,
            lambda count: best(None, count),
            rules.interest_quota,
            resolved.chosen_from,
            interests,
        )
    if query.diversity:
        pool = _diverse(pool, resolved, categories)
    if rules.min_per_category:
        pool = with_minimums(pool, rules.min_per_category, best, are_of, query.k)
        pool = pool if query.diversity else merge_query_hits(*pool)
    return Choice(pool, None if boosts is None else boosts.added(pool[0], unit))


def _diverse(pool: QueryHits, resolved: ResolvedQuery, categories: Categories) -> QueryHits:
    rows, scores, interests = pool
    first = categories.first[_catalog_rows(rows, categories)]
    chosen = diversify(scores, first, resolved.query.k, resolved.query.diversity)
    return rows.take(chosen), scores.take(chosen), interests.take(chosen)


def _catalog_rows(rows: NDArray[np.int64], categories: Categories) -> NDArray[np.int64]:
    """The rows, with PADDING for those of a delta, whose categories are unknown."""
    return np.where(rows < len(categories.codes), rows, PADDING)
