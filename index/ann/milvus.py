"""Search in a collection of Milvus: candidates from there, exact scores and the answer from here.

The K interests of all requests of a batch are one call. What comes back is scored again with the
vectors of the release, which are memory-mapped here, so that scores, ties and merging are those of
every other index, and rows of a collection with other vectors are noticed.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from index.ann.blocks import blocks
from index.ann.milvus_client import CATEGORY, ROW, MilvusClient, Neighbours
from index.ann.selection import NO_HITS, score_best, score_rows
from index.ann.spec import MilvusSpec
from index.retrieval.filters import Filter, Filters
from index.retrieval.merge import Hits, QueryHits, merge_query_hits, stack_hits
from index.retrieval.search import SearchUnavailableError

MAX_LIMIT = 16_384  # of Milvus: rows for one vector, and vectors of one call
_TOLERANCE = 1e-3  # of a score, as a share of the product of the norms
_OVER_FETCH = 1.5  # times as many items as must be asked for, if attributes were random
_MAX_SCORED = 1 << 22  # allowed items that are scored one by one, if the index found too few


class ForeignCollectionError(SearchUnavailableError):
    """The collection does not hold the vectors of the release."""

    def __init__(self) -> None:
        super().__init__(
            "engine: the collection does not hold this release's vectors; build the release again"
        )


class MilvusIndex:
    """The items of a release in a collection. Any number of threads may search.

    Raises SearchUnavailableError where Milvus fails; ForeignCollectionError where an answer is not
    from the vectors of this release.
    """

    def __init__(self, client: MilvusClient, spec: MilvusSpec, vectors: NDArray[np.float32]):
        """vectors (N + 1, D), row 0 padding; may be memory-mapped."""
        self._client = client
        self.spec = spec
        self._vectors = np.asarray(vectors)

    def search(self, interests: NDArray[np.float32], k: int, filters: Filters = None) -> Hits:
        return stack_hits([*self.iter_search(interests, k, filters)])

    def iter_search(
        self, interests: NDArray[np.float32], k: int, filters: Filters = None
    ) -> Iterator[QueryHits]:
        """One call for all requests with the same categories."""
        filters = filters or [None] * len(interests)
        groups: dict[str | None, list[int]] = {}
        hits: dict[int, QueryHits] = {}
        for position, allowed in enumerate(filters):
            if allowed and allowed.passes_few:
                hits[position] = self._score_all(interests[position], k, allowed)
            else:
                groups.setdefault(_category_expression(allowed), []).append(position)
        for expression, positions in groups.items():
            if expression is None:
                hits |= dict.fromkeys(positions, NO_HITS)
                continue
            group = [filters[position] for position in positions]
            found = self._search_group(interests[positions], k, group, expression)
            hits |= dict(zip(positions, found, strict=True))
        yield from (hits[position] for position in range(len(interests)))

    def _search_group(
        self,
        interests: NDArray[np.float32],
        k: int,
        filters: Sequence[Filter | None],
        expression: str,
    ) -> list[QueryHits]:
        requests, count = interests.shape[:2]
        excluded = max((len(f.excluded) for f in filters if f), default=0)
        limit = int((k + excluded) * max(map(self._over_fetch, filters)))
        lists = self._ask(interests.reshape(requests * count, -1), limit, expression)
        return [
            self._hits(interests[i], k, filters[i], lists[i * count : (i + 1) * count], expression)
            for i in range(requests)
        ]

    def _ask(
        self, vectors: NDArray[np.float32], limit: int, expression: str
    ) -> Sequence[Neighbours]:
        limit = min(limit, MAX_LIMIT, len(self._vectors) - 1)
        found: list[Neighbours] = []
        for block in blocks(len(vectors), MAX_LIMIT):
            found += self._client.search(self.spec, vectors[block], limit, expression)
        return found

    def _hits(
        self,
        interests: NDArray[np.float32],
        k: int,
        allowed: Filter | None,
        lists: Sequence[Neighbours],
        expression: str,
    ) -> QueryHits:
        """The allowed ones of what the interests (K, D) found; all that are needed for the k best.

        Items that are withdrawn are many and change: they are left out here, and only where that
        leaves too few are they named to Milvus.
        """
        self._check(interests, lists)
        needed = min(k, self._least_allowed(allowed))
        rows, fewest = self._allowed(lists, allowed)
        if fewest < needed and allowed and (allowed.withdrawn or allowed.excluded):
            without = f"{ROW} not in {sorted(allowed.withdrawn | allowed.excluded)}"
            both = f"({expression}) and {without}" if expression else without
            lists = self._ask(interests, k, both)
            self._check(interests, lists)
            rows, fewest = self._allowed(lists, allowed)
        is_masked = allowed is not None and allowed.mask is not None
        if fewest < needed and (is_masked or self._most_allowed(allowed) <= _MAX_SCORED):
            return self._score_all(interests, k, allowed)
        return score_rows(self._vectors, rows, interests)

    def _allowed(
        self, lists: Sequence[Neighbours], allowed: Filter | None
    ) -> tuple[NDArray[np.int64], int]:
        """The allowed rows of all lists, ascending, and how many the shortest list has of them."""
        rows = np.unique(np.concatenate([found for found, _ in lists]))
        if allowed:
            rows = allowed.filter_rows(rows)
        return rows, min(int(np.isin(found, rows).sum()) for found, _ in lists)

    def _over_fetch(self, allowed: Filter | None) -> float:
        """How many times as many items are asked for: Milvus does not hold the attributes."""
        if allowed is None or allowed.mask is None:
            return 1.0
        return _OVER_FETCH * (len(self._vectors) - 1) / allowed.mask.count

    def _most_allowed(self, allowed: Filter | None) -> int:
        return allowed.passing if allowed else len(self._vectors) - 1

    def _least_allowed(self, allowed: Filter | None) -> int:
        """So many items are allowed at the least."""
        most = self._most_allowed(allowed)
        return max(0, most - len(allowed.excluded | allowed.withdrawn)) if allowed else most

    def _score_all(
        self, interests: NDArray[np.float32], k: int, allowed: Filter | None
    ) -> QueryHits:
        """The k best of all allowed items, in ascending order of rows: an index can find fewer
        than there are, above all under a filter that leaves little."""
        rows = allowed.rows() if allowed else np.arange(1, len(self._vectors))
        return score_best(self._vectors, rows, interests, k)

    def _check(self, interests: NDArray[np.float32], lists: Sequence[Neighbours]) -> None:
        """Whether the best score of each interest is what the release's vector gives."""
        found = [position for position, (rows, _) in enumerate(lists) if len(rows)]
        if not found:
            return
        firsts = np.array([lists[position][0][0] for position in found])
        given = np.array([lists[position][1][0] for position in found])
        if firsts.min() < 1 or firsts.max() >= len(self._vectors):
            raise ForeignCollectionError
        vectors, asking = self._vectors.take(firsts, axis=0), interests[found]
        norms = np.sqrt(np.vecdot(vectors, vectors) * np.vecdot(asking, asking))
        if (np.abs(np.vecdot(vectors, asking) - given) > _TOLERANCE * norms).any():
            raise ForeignCollectionError


def _category_expression(allowed: Filter | None) -> str | None:
    """The categories as an expression of Milvus: empty if all pass, None if none does."""
    if allowed is None or allowed.passes is None or allowed.passes.all():
        return ""
    codes = np.flatnonzero(allowed.passes).tolist()
    if not codes or not allowed.passing:
        return None
    if 2 * len(codes) <= len(allowed.passes):
        return f"{CATEGORY} in {codes}"
    return f"{CATEGORY} not in {np.flatnonzero(~allowed.passes).tolist()}"


def merged_rows(index: MilvusIndex, interests: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """The k best rows for one request of interests (K, D), best first."""
    [hits] = index.iter_search(interests[None], k)
    return merge_query_hits(*hits)[0][:k]
