"""What a retriever is asked, and what it answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from index.retrieval.attribute_filter import AttributeFilter
from index.retrieval.boosts import BoostGroups
from index.retrieval.diversity import POOL_FACTOR
from index.retrieval.explanation import Explanation
from index.retrieval.filters import CategoryFilter, Filter
from index.retrieval.overlap import InterestOverlap
from index.retrieval.rules import Rules

Source = Literal["interests", "popular"]
_NO_RULES = Rules()


@dataclass(frozen=True, slots=True)
class Query:
    """One request for the k best items for a history of item ids, newest last.

    exclude_seen: drop every item of the given history, also those beyond the encoder's length; None
    is the retriever's default.
    exclude: further ids to drop. diversity: 0 to 1, see index/retrieval/diversity.py.
    explain, measure_overlap: add these to the answer, which takes time.
    attributes: None allows all. rules: see Rules. seen: further ids to drop together with those of
    the history. ages: seconds from each event of the history to the request, NaN where unknown;
    None if no time is known.
    """

    history: Sequence[str]
    k: int = 50
    exclude_seen: bool | None = None
    exclude: Sequence[str] = ()
    categories: CategoryFilter | None = None
    diversity: float = 0.0
    explain: bool = False
    measure_overlap: bool = False
    attributes: AttributeFilter | None = None
    rules: Rules = _NO_RULES
    seen: Sequence[str] = ()
    ages: Sequence[float] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """Candidates for one query, best first, no item twice; fewer than k if no more were found.

    rows (n,) of the catalogue, or above its N of a delta; scores (n,) inner products, or
    interactions in the log if the source is popular, and what boosts added; interests (n,) the
    interest that found each item, -1 if the source is popular.
    unknown: number of history items that are not in the catalogue; a delta may know some of them.
    boosts (n,): what boosts added; None if the query has none.
    explanation, overlap: if the query asks for them and the source is interests; overlap ignores
    the query's filters.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    interests: NDArray[np.int64]
    source: Source
    unknown: int
    boosts: NDArray[np.float32] | None = None
    explanation: Explanation | None = None
    overlap: InterestOverlap | None = None

    @property
    def top_interest_share(self) -> float:
        """The share of the candidates that the interest with the most candidates found."""
        return int(np.bincount(self.interests).max()) / len(self.interests)


@dataclass(frozen=True, slots=True)
class ResolvedQuery:
    """A query with the history rows that have a vector, and the filter of its answer.

    unknown: number of history items that are not in the catalogue.
    boosts: those of its rules, if any, by item. ages: of the rows, where the encoder reads them.
    """

    query: Query
    rows: Sequence[int]
    unknown: int
    filter: Filter
    boosts: BoostGroups | None = None
    ages: Sequence[float] | None = None

    @property
    def chosen_from(self) -> int:
        """Number of best items that the answer is chosen from."""
        return self.query.k * (POOL_FACTOR if self.query.diversity else 1)

    @property
    def pool_size(self) -> int:
        """Number of best allowed items without rules, of which boosts need the spread."""
        return self.chosen_from if self.boosts is None else self.query.k * POOL_FACTOR
