"""Histories -> candidates: encode, search, merge, choose; or popular items. No I/O."""

import time
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from index.encoders import Encoder, ServedHistory, ServedInterests
from index.retrieval.attributes import mask
from index.retrieval.boosts import BoostGroups
from index.retrieval.catalog import PADDING, Catalog
from index.retrieval.choice import choose
from index.retrieval.delta import Delta, normalize
from index.retrieval.explanation import explain
from index.retrieval.filters import Categories, Filter
from index.retrieval.merge import QueryHits
from index.retrieval.overlap import measure_overlap
from index.retrieval.padding import pad_histories
from index.retrieval.query import Answer, Query, ResolvedQuery
from index.retrieval.ranking import InterestRanking, PopularityRanking
from index.retrieval.search import ItemIndex, SearchRequest, Timings, search

_NO_ROWS: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Retriever:
    """An encoder, the item vectors that it reads, and the index over them, all of one release.

    vectors (N + 1, D) float32, row 0 zero; may be memory-mapped.
    history_length: number of history items that the encoder sees.
    exclude_seen: whether queries that do not say drop the items of their history.
    """

    catalog: Catalog
    encoder: Encoder
    vectors: NDArray[np.float32]
    index: ItemIndex
    history_length: int
    exclude_seen: bool = True
    _categories: Categories = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(
            self,
            "_categories",
            Categories(self.catalog.categories, self.catalog.other_categories),
        )

    def with_catalog(self, catalog: Catalog) -> "Retriever":
        """The retriever with other details of the same items."""
        retriever = copy(self)
        object.__setattr__(retriever, "catalog", catalog)
        if catalog.categories is not self.catalog.categories:
            categories = Categories(catalog.categories, catalog.other_categories)
            object.__setattr__(retriever, "_categories", categories)
        return retriever

    def encode(self, histories: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Interests (B, K, D) of histories of rows, newest last, each with a known item."""
        return self._encode(histories, None)[1].vectors

    def recommend(
        self,
        queries: Sequence[Query],
        timings: Timings | None = None,
        withdrawn: frozenset[int] = _NO_ROWS,
        delta: Delta | None = None,
    ) -> list[Answer]:
        """An answer for each query. A query whose history has no item with a vector, in the
        catalogue or the delta, gets popular items.

        withdrawn: rows that no answer may contain. Filters are exact given the index: an answer is
        the k best of the allowed items.
        delta: items that the catalogue does not know. They are searched beside the catalogue's and
        read in histories; their category and attributes are unknown.
        """
        answers = dict(self.answers(queries, timings, withdrawn, delta))
        return [answers[position] for position in range(len(queries))]

    def answers(
        self,
        queries: Sequence[Query],
        timings: Timings | None = None,
        withdrawn: frozenset[int] = _NO_ROWS,
        delta: Delta | None = None,
    ) -> Iterator[tuple[int, Answer]]:
        """The answers of recommend, each with the position of its query, in any order.

        All queries are encoded together; the other work is done when an answer is consumed.
        """
        resolved = [self._resolve(query, withdrawn, delta) for query in queries]
        positions = [position for position, query in enumerate(resolved) if query.rows]
        for position, query in enumerate(resolved):
            if not query.rows:
                yield position, self._answer_popular(query)
        if positions:
            with_history = [resolved[position] for position in positions]
            for index, answer in self._answer(with_history, timings or Timings(), delta):
                yield positions[index], answer

    def similar(
        self,
        item_id: str,
        k: int = 50,
        withdrawn: frozenset[int] = _NO_ROWS,
        delta: Delta | None = None,
    ) -> QueryHits | None:
        """The k catalogue items nearest to an item, without itself: its vector is the interest.

        A score is the inner product with the item's vector scaled to norm 1, without terms such as
        a bias. As with interests, long vectors, those of popular items, have higher scores.
        None for an item that neither the catalogue nor the delta knows.
        """
        [row] = self._rows([item_id], delta)
        if not row:
            return None
        vector = self._vectors_of(np.array(row), delta).copy()
        vector[self.encoder.content :] = 0
        interest = normalize(vector)
        excluded = frozenset({row} if row <= len(self.catalog) else ())
        request = SearchRequest(k, Filter(self._categories, excluded, withdrawn, None))
        [(_, hits)] = search(self.index, interest[None, None], [request], Timings())
        return hits

    def _encode(
        self, histories: Sequence[Sequence[int]], delta: Delta | None
    ) -> tuple[NDArray[np.int64], ServedInterests]:
        """The rows that the encoder sees (B, L), 0 = padding, and their interests."""
        rows = pad_histories(histories, self.history_length)
        known, vectors = self._catalog_rows(rows) if delta else rows, self._vectors_of(rows, delta)
        with np.errstate(
            over="ignore", invalid="ignore"
        ):  # as torch: what is not finite comes out so
            return rows, self.encoder.serve(ServedHistory(known, vectors, rows != PADDING))

    def _resolve(
        self, query: Query, withdrawn: frozenset[int], delta: Delta | None
    ) -> ResolvedQuery:
        rows = [row for row in self._rows(query.history, delta) if row]
        known = [row for row in rows if row <= len(self.catalog)] if delta else rows
        excluded, others = _NO_ROWS, query.exclude
        if self._excludes_seen(query):
            excluded, others = frozenset(known), [*query.exclude, *query.seen]
        if others:
            excluded |= frozenset(self.catalog.rows(others)) - {PADDING}
        allowed = Filter(self._categories, excluded, withdrawn, None)
        if query.categories:
            passes = self._categories.passes(query.categories)
            unknown = query.categories.allow is None
            allowed = replace(allowed, passes=passes, passes_unknown=unknown)
        columns, items = self.catalog.attributes, len(self.catalog)
        if query.attributes:
            having = mask(columns, query.attributes, items)
            allowed = allowed.within(having, query.attributes.passes_unknown)
        boosts = query.rules.boosts
        groups = BoostGroups.of(boosts, columns, items) if boosts else None
        return ResolvedQuery(query, rows, len(query.history) - len(known), allowed, groups)

    def _excludes_seen(self, query: Query) -> bool:
        return self.exclude_seen if query.exclude_seen is None else query.exclude_seen

    def _rows(self, item_ids: Sequence[str], delta: Delta | None) -> list[int]:
        """The row of each id in the catalogue, or else in the delta; 0 if in neither."""
        rows = self.catalog.rows(item_ids)
        if not delta or PADDING not in rows:
            return rows
        delta_rows = delta.rows(item_ids, len(self.catalog))
        return [row or delta_row for row, delta_row in zip(rows, delta_rows, strict=True)]

    def _answer(
        self, queries: Sequence[ResolvedQuery], timings: Timings, delta: Delta | None
    ) -> Iterator[tuple[int, Answer]]:
        """Answers by interests, with positions; each history has an item with a vector."""
        start = time.perf_counter()
        encoded_rows, encoded = self._encode([query.rows for query in queries], delta)
        interests = encoded.vectors
        timings.encode += time.perf_counter() - start
        requests = [SearchRequest(query.pool_size, query.filter) for query in queries]
        for position, hits in search(self.index, interests, requests, timings):
            resolved = queries[position]
            excluded = self._excluded_ids(resolved.query) if delta else ()
            rank = InterestRanking(
                self.index, interests[position], timings, len(self.catalog), delta, excluded
            )
            pool = rank.with_delta(hits, requests[position])
            choice = choose(pool, rank, resolved, self._categories, interests.shape[1])
            answer = Answer(*choice.hits, "interests", resolved.unknown, choice.boosts)
            if resolved.query.explain:
                explanation = explain(
                    interests[position],
                    self._vectors_of(answer.rows, delta),
                    answer.scores if answer.boosts is None else answer.scores - answer.boosts,
                    answer.interests,
                    encoded.attention[position],
                    encoded_rows[position],
                )
                answer = replace(answer, explanation=explanation)
            if resolved.query.measure_overlap:
                overlap = measure_overlap(self.index, interests[position], resolved.query.k)
                answer = replace(answer, overlap=overlap)
            yield position, answer

    def _answer_popular(self, resolved: ResolvedQuery) -> Answer:
        """The most popular allowed items, whatever the history."""
        rank = PopularityRanking(self.catalog.popularity)
        [pool] = rank([resolved.filter], resolved.pool_size)
        choice = choose(pool, rank, resolved, self._categories, interests=0)
        return Answer(*choice.hits, "popular", resolved.unknown, choice.boosts)

    def _excluded_ids(self, query: Query) -> Sequence[str]:
        if not self._excludes_seen(query):
            return query.exclude
        return [*query.exclude, *query.history, *query.seen]

    def _vectors_of(self, rows: NDArray[np.int64], delta: Delta | None) -> NDArray[np.float32]:
        """(..., D): vectors of rows of the catalogue or the delta."""
        catalog_vectors = np.asarray(self.vectors)  # indexing a memory map is slow in Python
        if not delta:
            return catalog_vectors.take(rows, axis=0)
        vectors = catalog_vectors.take(self._catalog_rows(rows), axis=0)
        if (is_new := rows > len(self.catalog)).any():
            vectors[is_new] = delta.vectors[rows[is_new] - len(self.catalog) - 1]
        return vectors

    def _catalog_rows(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows, with PADDING for those of a delta."""
        return np.where(rows <= len(self.catalog), rows, PADDING)
