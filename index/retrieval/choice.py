"""The items of an answer: from a pool of the best allowed ones, by rules and diversity."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.retrieval.boosts import unit_of
from index.retrieval.corpus import Corpus
from index.retrieval.diversity import diversify
from index.retrieval.filters import CategoryFilter, Filter
from index.retrieval.merge import QueryHits, merge_query_hits
from index.retrieval.minimums import NEW_ITEMS, Group, with_minimums
from index.retrieval.query import ResolvedQuery
from index.retrieval.quota import within_quota
from index.retrieval.ranking import Rank


class Choice(NamedTuple):
    """The k items, best first, scored with what boosts added (k,); None without boosts."""

    hits: QueryHits
    boosts: NDArray[np.float32] | None


def choose(
    pool: QueryHits, rank: Rank, resolved: ResolvedQuery, corpus: Corpus, interests: int
) -> Choice:
    """The items of the answer to a query.

    pool: the pool_size best allowed items, best first. rank: further items, for rules. interests:
    how many found them; 0 if they are popular ones.
    """
    if not (resolved.query.rules or resolved.query.diversity):
        return Choice(pool, None)
    return _by_rules(pool, rank, resolved, corpus, interests)


def _by_rules(
    pool: QueryHits, rank: Rank, resolved: ResolvedQuery, corpus: Corpus, interests: int
) -> Choice:
    """As choose, for a query that has rules or diversity."""
    query, rules, boosts = resolved.query, resolved.query.rules, resolved.boosts
    unit = unit_of(pool[1])

    def best(count: int, allowed: Filter = resolved.filter) -> QueryHits:
        if boosts is not None:
            return boosts.best(rank, allowed, count, unit)
        [hits] = rank([allowed], count)
        return hits

    if boosts is not None:
        pool = best(resolved.chosen_from)
    if rules.interest_quota is not None and interests:
        pool = within_quota(pool, best, rules.interest_quota, resolved.chosen_from, interests)
    if query.diversity:
        pool = _diverse(pool, resolved, corpus)
    if minimums := rules.minimums:
        pool = with_minimums(
            pool,
            minimums,
            lambda group, count: best(count, _of(group, resolved.filter)),
            corpus.are_of,
            query.k,
        )
        pool = pool if query.diversity else merge_query_hits(*pool)
    return Choice(pool, None if boosts is None else boosts.added(pool[0], unit))


def _of(group: Group, allowed: Filter) -> Filter:
    """The filter for the items of a group alone."""
    if group is NEW_ITEMS:
        return allowed.of_beside()
    return allowed.of_categories(CategoryFilter([group]))


def _diverse(pool: QueryHits, resolved: ResolvedQuery, corpus: Corpus) -> QueryHits:
    rows, scores, interests = pool
    first = corpus.first_categories(rows)
    chosen = diversify(scores, first, resolved.query.k, resolved.query.diversity)
    return rows.take(chosen), scores.take(chosen), interests.take(chosen)
