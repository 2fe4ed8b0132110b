"""Histories -> candidates: encode, search what is allowed, diversify; or popular items. No I/O."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from index.encoders import Encoder, History, Interests
from index.retrieval.catalog import PADDING, Catalog
from index.retrieval.delta import Delta, beside, unit
from index.retrieval.diversity import POOL, diversify
from index.retrieval.explanation import Explanation, explain
from index.retrieval.filters import Categories, CategoryFilter, Filter
from index.retrieval.merge import QueryHits, merge
from index.retrieval.padding import pad_histories
from index.retrieval.search import ItemIndex, SearchRequest, Timings, search

Source = Literal["interests", "popular"]
_NOBODY: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Query:
    """One request: a history of item ids, newest last, and what is wanted for it.

    exclude_seen drops every item of the history given, also those beyond the encoder's length.
    exclude: further ids to drop. diversity: 0 to 1, see index/retrieval/diversity.py.
    explain, measure_overlap: whether the answer is to have these, which take time.
    """

    history: Sequence[str]
    k: int = 50
    exclude_seen: bool = True
    exclude: Sequence[str] = ()
    categories: CategoryFilter | None = None
    diversity: float = 0.0
    explain: bool = False
    measure_overlap: bool = False


class InterestOverlap(NamedTuple):
    """How many distinct items are among the k best of each of the K interests, and of how many.

    Of K times k where there are as many items: 1 / K of that if all interests are the same.
    """

    distinct: int
    of: int


@dataclass(frozen=True, slots=True)
class Answer:
    """Candidates for one query, best first, no item twice; fewer than k if no more were found.

    rows (n,) of the catalogue, or beyond its N of a delta; scores (n,) inner products, or
    interactions in the log where the source is popular; interests (n,) which interest found the
    item, -1 where the source is popular.
    unknown: items of the history that are not in the catalogue; a delta may know some of them.
    explanation, overlap: where the query wants them and the source is interests; overlap is of what
    the interests find, whatever may be in the answer.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    interests: NDArray[np.int64]
    source: Source
    unknown: int
    explanation: Explanation | None = None
    overlap: InterestOverlap | None = None

    @property
    def top_interest_share(self) -> float:
        """The share of the candidates that were found by the interest which found most of them."""
        return int(np.bincount(self.interests).max()) / len(self.interests)


@dataclass(frozen=True)
class Retriever:
    """An encoder, the item vectors it reads, and the index over them, all of one release.

    vectors (N + 1, D) float32, row 0 zero; may be memory-mapped.
    history_length: the items of a history that the encoder sees.
    """

    catalog: Catalog
    encoder: Encoder
    vectors: NDArray[np.float32]
    index: ItemIndex
    history_length: int
    _categories: Categories = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_categories", Categories(self.catalog.categories))

    def encode(self, histories: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Interests (B, K, D) of histories of rows, newest last, each with a known item."""
        vectors: NDArray[np.float32] = self._encode(histories, None)[1].vectors.numpy()
        return vectors

    def _encode(
        self, histories: Sequence[Sequence[int]], delta: Delta | None
    ) -> tuple[NDArray[np.int64], Interests]:
        """The rows that the encoder sees (B, L), 0 = padding, and what it makes of them."""
        rows = pad_histories(histories, self.history_length)
        vectors = torch.from_numpy(self._vectors_of(rows, delta))
        known = torch.from_numpy(self._known(rows) if delta else rows)
        with torch.inference_mode():
            return rows, self.encoder(History(known, vectors, torch.from_numpy(rows != PADDING)))

    def recommend(
        self,
        queries: Sequence[Query],
        timings: Timings | None = None,
        withdrawn: frozenset[int] = _NOBODY,
        delta: Delta | None = None,
    ) -> list[Answer]:
        """An answer for each query; those with no item in their history that has a vector, in the
        catalogue or in the delta, get popular items.

        withdrawn: rows that are to be in no answer. Exact given the index: what is not allowed is
        left out of the ranking of all items, and the k best of the others remain.
        delta: items that the catalogue does not know, to be found by interests beside its own and
        to be read in histories. Their category is not known.
        """
        answers = dict(self.answers(queries, timings, withdrawn, delta))
        return [answers[place] for place in range(len(queries))]

    def answers(
        self,
        queries: Sequence[Query],
        timings: Timings | None = None,
        withdrawn: frozenset[int] = _NOBODY,
        delta: Delta | None = None,
    ) -> Iterator[tuple[int, Answer]]:
        """The same answers, each with the place of its query, in some order: all are encoded
        together, and the rest of the work for each is done when it is asked for."""
        asked = [self._asked(query, withdrawn, delta) for query in queries]
        known = [place for place, each in enumerate(asked) if each.rows]
        for place, each in enumerate(asked):
            if not each.rows:
                yield place, self._popular(each)
        if known:
            found = self._find([asked[place] for place in known], timings or Timings(), delta)
            for at, answer in found:
                yield known[at], answer

    def _asked(
        self, query: Query, withdrawn: frozenset[int], delta: Delta | None
    ) -> "ResolvedQuery":
        rows = [row for row in self._rows(query.history, delta) if row]
        known = [row for row in rows if row <= len(self.catalog)] if delta else rows
        excluded = frozenset(known) if query.exclude_seen else _NOBODY
        if query.exclude:
            excluded |= frozenset(self.catalog.rows(query.exclude)) - {PADDING}
        passes = self._categories.passes(query.categories) if query.categories else None
        allowed = Filter(self._categories, excluded, withdrawn, passes)
        return ResolvedQuery(query, rows, len(query.history) - len(known), allowed)

    def _rows(self, item_ids: Sequence[str], delta: Delta | None) -> list[int]:
        """The row of each in the catalogue, or else in the delta; 0 for those in neither."""
        rows = self.catalog.rows(item_ids)
        if not delta or PADDING not in rows:
            return rows
        new = delta.rows(item_ids, len(self.catalog))
        return [row or other for row, other in zip(rows, new, strict=True)]

    def _find(
        self, asked: Sequence["ResolvedQuery"], timings: Timings, delta: Delta | None
    ) -> Iterator[tuple[int, Answer]]:
        """Answers by interests, with their places; each history has an item with a vector."""
        start = time.perf_counter()
        seen, encoded = self._encode([each.rows for each in asked], delta)
        interests: NDArray[np.float32] = encoded.vectors.numpy()
        timings.encode += time.perf_counter() - start
        wanted = [SearchRequest(each.pool, each.filter) for each in asked]
        for place, found in search(self.index, interests, wanted, timings):
            each, line = asked[place], found
            if delta:
                start = time.perf_counter()
                line = self._with_new(delta, each, interests[place], line)
                timings.merge += time.perf_counter() - start
            answer = Answer(*self._choose(line, each.query), "interests", each.unknown)
            if each.query.explain:
                told = explain(
                    interests[place],
                    self._vectors_of(answer.rows, delta),
                    answer.scores,
                    answer.interests,
                    encoded.attention[place].numpy(),
                    seen[place],
                )
                answer = replace(answer, explanation=told)
            if each.query.measure_overlap:
                answer = replace(answer, overlap=self._overlap(interests[place], each.query.k))
            yield place, answer

    def _with_new(
        self, delta: Delta, asked: "ResolvedQuery", interests: NDArray[np.float32], line: QueryHits
    ) -> QueryHits:
        """The pool for interests (K, D), of the catalogue's line and what is new."""
        query = asked.query
        if query.categories and query.categories.allow is not None:
            return line
        barred = [*query.exclude, *(query.history if query.exclude_seen else ())]
        new = delta.best(interests, barred, asked.pool, len(self.catalog))
        return beside(line, new, asked.pool)

    def _vectors_of(self, rows: NDArray[np.int64], delta: Delta | None) -> NDArray[np.float32]:
        """(..., D): of the catalogue's rows and of those beside it."""
        if not delta:
            return self.vectors[rows]
        vectors = self.vectors[self._known(rows)]
        if (new := rows > len(self.catalog)).any():
            vectors[new] = delta.vectors[rows[new] - len(self.catalog) - 1]
        return vectors

    def _known(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows, with PADDING for those beside the catalogue."""
        return np.where(rows <= len(self.catalog), rows, PADDING)

    def _choose(self, pool: QueryHits, query: Query) -> QueryHits:
        """The k items of the pool that are the answer."""
        if not query.diversity:
            return pool
        rows, scores, interests = pool
        categories = self._categories.codes[self._known(rows)]
        places = diversify(scores, categories, query.k, query.diversity)
        return rows.take(places), scores.take(places), interests.take(places)

    def _popular(self, asked: "ResolvedQuery") -> Answer:
        """The most popular items that are allowed, whatever the history."""
        rows = asked.filter.most_popular(asked.pool)
        scores = self.catalog.popularity[rows - 1].astype(np.float32)
        rows, scores, interests = self._choose((rows, scores, np.full(len(rows), -1)), asked.query)
        return Answer(rows, scores, interests, "popular", asked.unknown)

    def _overlap(self, interests: NDArray[np.float32], k: int) -> InterestOverlap:
        """interests (K, D) of one user, each searched for alone."""
        rows = merge(self.index.search(interests[:, None, :], k)).rows[:, :k]
        found = rows[rows > 0]
        return InterestOverlap(len(np.unique(found)), len(found))

    def similar(
        self,
        item_id: str,
        k: int = 50,
        withdrawn: frozenset[int] = _NOBODY,
        delta: Delta | None = None,
    ) -> QueryHits | None:
        """The k items of the catalogue nearest to one, itself left out, as if it were an interest.

        A score is the inner product with the item's vector brought to length 1: by it, as for an
        interest, long vectors are nearer, which are those of popular items.
        None for an item that neither the catalogue nor the delta knows.
        """
        [row] = self._rows([item_id], delta)
        if not row:
            return None
        interest = unit(self._vectors_of(np.array(row), delta))
        itself = frozenset({row} if row <= len(self.catalog) else ())
        wanted = SearchRequest(k, Filter(self._categories, itself, withdrawn, None))
        [(_, line)] = search(self.index, interest[None, None], [wanted], Timings())
        return line


@dataclass(frozen=True, slots=True)
class ResolvedQuery:
    """A query, the rows of its history that have a vector, and which rows it may be given.

    unknown: items of the history that are not in the catalogue.
    """

    query: Query
    rows: Sequence[int]
    unknown: int
    filter: Filter

    @property
    def pool(self) -> int:
        """How many of the best that are allowed the answer is chosen from."""
        return self.query.k * (POOL if self.query.diversity else 1)
