"""Histories -> candidates: encode, search, merge, choose; or popular items. No I/O."""

import time
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from index.encoders import Encoder, ServedHistory, ServedInterests
from index.retrieval.boosts import BoostGroups
from index.retrieval.catalog import PADDING, Catalog
from index.retrieval.choice import choose
from index.retrieval.corpus import Corpus
from index.retrieval.delta import Delta, normalize
from index.retrieval.explanation import explain
from index.retrieval.filters import Categories, Filter
from index.retrieval.merge import QueryHits
from index.retrieval.overlap import measure_overlap
from index.retrieval.padding import pad_gaps, pad_histories
from index.retrieval.query import Answer, Query, ResolvedQuery
from index.retrieval.ranking import InterestRanking, PopularityRanking
from index.retrieval.search import ItemIndex, SearchRequest, Timings, search

Ages = Sequence[float] | None
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

    def encode(
        self, histories: Sequence[Sequence[int]], ages: Sequence[Ages] | None = None
    ) -> NDArray[np.float32]:
        """Interests (B, K, D) of histories of rows, newest last, each with a known item.

        ages: seconds from each event to the request; a history that has them has no unknown item.
        """
        ages = ages or [None] * len(histories)
        return self._encode(histories, ages, self._corpus(None))[1].vectors

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
        read in histories. Popular items are those of the catalogue, and then the delta's.
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
        corpus = self._corpus(delta)
        resolved = [self._resolve(query, withdrawn, corpus) for query in queries]
        positions = [position for position, query in enumerate(resolved) if query.rows]
        for position, query in enumerate(resolved):
            if not query.rows:
                yield position, self._answer_popular(query, corpus)
        if positions:
            with_history = [resolved[position] for position in positions]
            for index, answer in self._answer(with_history, timings or Timings(), corpus):
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
        corpus = self._corpus(delta)
        [row] = corpus.rows([item_id])
        if not row:
            return None
        vector = self._vectors_of(np.array(row), corpus).copy()
        vector[self.encoder.content :] = 0
        interest = normalize(vector)
        excluded = frozenset({row} if row <= len(self.catalog) else ())
        request = SearchRequest(k, Filter(self._categories, excluded, withdrawn, None))
        [(_, hits)] = search(self.index, interest[None, None], [request], Timings())
        return hits

    def _corpus(self, delta: Delta | None) -> Corpus:
        return Corpus(self.catalog, self._categories, delta or None)

    def _encode(
        self, histories: Sequence[Sequence[int]], ages: Sequence[Ages], corpus: Corpus
    ) -> tuple[NDArray[np.int64], ServedInterests]:
        """The rows that the encoder sees (B, L), 0 = padding, and their interests."""
        rows = pad_histories(histories, self.history_length)
        gaps = pad_gaps(ages, self.history_length) if self.encoder.reads_gaps else None
        known = rows if corpus.delta is None else corpus.catalog_rows(rows)
        with np.errstate(
            over="ignore", invalid="ignore"
        ):  # as torch: what is not finite comes out so
            vectors = self._vectors_of(rows, corpus)
            return rows, self.encoder.serve(ServedHistory(known, vectors, rows != PADDING, gaps))

    def _resolve(self, query: Query, withdrawn: frozenset[int], corpus: Corpus) -> ResolvedQuery:
        found = corpus.rows(query.history)
        rows = [row for row in found if row]
        ages = query.ages if self.encoder.reads_gaps else None
        if ages is not None and len(rows) < len(found):
            ages = [age for age, row in zip(ages, found, strict=True) if row]
        excluded, others = _NO_ROWS, query.exclude
        if self.exclude_seen if query.exclude_seen is None else query.exclude_seen:
            excluded, others = frozenset(rows), [*query.exclude, *query.seen]
        if others:
            excluded |= frozenset(corpus.rows(others)) - {PADDING}
        allowed = corpus.filter(excluded, withdrawn, query.categories, query.attributes)
        known = sum(row <= len(self.catalog) for row in rows) if corpus.delta else len(rows)
        boosts = BoostGroups.of(query.rules.boosts, corpus) if query.rules.boosts else None
        return ResolvedQuery(query, rows, len(query.history) - known, allowed, boosts, ages)

    def _answer(
        self, queries: Sequence[ResolvedQuery], timings: Timings, corpus: Corpus
    ) -> Iterator[tuple[int, Answer]]:
        """Answers by interests, with positions; each history has an item with a vector."""
        start = time.perf_counter()
        histories, ages = [query.rows for query in queries], [query.ages for query in queries]
        encoded_rows, encoded = self._encode(histories, ages, corpus)
        interests = encoded.vectors
        timings.encode += time.perf_counter() - start
        requests = [SearchRequest(query.pool_size, query.filter) for query in queries]
        for position, hits in search(self.index, interests, requests, timings):
            resolved = queries[position]
            rank = InterestRanking(
                self.index, interests[position], timings, len(self.catalog), corpus.delta
            )
            pool = rank.with_delta(hits, requests[position])
            choice = choose(pool, rank, resolved, corpus, interests.shape[1])
            answer = Answer(*choice.hits, "interests", resolved.unknown, choice.boosts)
            if resolved.query.explain:
                explanation = explain(
                    interests[position],
                    self._vectors_of(answer.rows, corpus),
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

    def _answer_popular(self, resolved: ResolvedQuery, corpus: Corpus) -> Answer:
        """The most popular allowed items, whatever the history."""
        rank = PopularityRanking(self.catalog.popularity)
        [pool] = rank([resolved.filter], resolved.pool_size)
        choice = choose(pool, rank, resolved, corpus, interests=0)
        return Answer(*choice.hits, "popular", resolved.unknown, choice.boosts)

    def _vectors_of(self, rows: NDArray[np.int64], corpus: Corpus) -> NDArray[np.float32]:
        """(..., D): vectors of rows of the catalogue or the delta."""
        catalog_vectors = np.asarray(self.vectors)  # indexing a memory map is slow in Python
        if corpus.delta is None:
            return catalog_vectors.take(rows, axis=0)
        vectors = catalog_vectors.take(corpus.catalog_rows(rows), axis=0)
        if (is_new := rows > len(self.catalog)).any():
            vectors[is_new] = corpus.delta.vectors[rows[is_new] - len(self.catalog) - 1]
        return vectors
