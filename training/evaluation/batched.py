"""Evaluation on the device of the training: every item scored, for many users in one product.

The metrics are those of `evaluate`, whose search is the server's and for the CPU. Only items of
equal scores may be ranked in another order.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from index.encoders import Encoder, History
from index.retrieval.catalog import Catalog
from index.retrieval.padding import pad_gaps, pad_histories
from training.evaluation.evaluate import about
from training.evaluation.interest_lists import without
from training.evaluation.interest_metrics import of_rankings, pairwise_cosine
from training.evaluation.metrics import (
    DISTINCT_SHARE,
    INTEREST_CUTOFF,
    CaseView,
    distinct_share,
    measure,
)
from training.evaluation.protocols import EvaluationCase
from training.evaluation.rankings import DEPTH

_SCORES = 2**27  # held at a time: 512 MiB
_MOST_USERS = 1024  # in one product


class Best(NamedTuple):
    """The best items of B users, best first: rows (B, n), 0 where there are no more, and which
    interest found each (B, n)."""

    rows: NDArray[np.int64]
    interests: NDArray[np.int64]


class BatchedScorer:
    """vectors (N + 1, D): of the rows, row 0 zero, on the device of the encoder."""

    def __init__(
        self, catalog: Catalog, encoder: Encoder, vectors: Tensor, history_length: int
    ) -> None:
        self._catalog, self._encoder, self._length = catalog, encoder, history_length
        self._vectors = vectors

    @torch.inference_mode()
    def encode(self, cases: Sequence[EvaluationCase]) -> Tensor:
        """Interests (B, K, D) of cases with histories that are not empty."""
        device, gaps = self._vectors.device, None
        rows = pad_histories([case.history for case in cases], self._length)
        if self._encoder.reads_gaps:
            ages = pad_gaps([case.ages for case in cases], self._length)
            gaps = torch.from_numpy(ages).to(device)
        on_device = torch.from_numpy(rows).to(device)
        history = History(on_device, self._vectors[on_device], on_device > 0, gaps)
        return self._encoder(history).vectors

    @torch.inference_mode()
    def evaluate(self, cases: list[EvaluationCase], exclude_seen: bool = True) -> dict[str, float]:
        """The metrics of `evaluate`, of cases without candidates."""
        rankings: list[list[int]] = []
        for block, interests in self._blocks(cases):
            seen = [case.history for case in block] if exclude_seen else None
            best = self._best(interests, seen, DEPTH)
            rankings += [rows[rows > 0].tolist() for rows in best.rows]
        values = measure((case.relevant for case in cases), rankings)
        means = {name: float(by_user.mean()) for name, by_user in values.items()}

        def measure_interests(known: list[EvaluationCase]) -> dict[str, float]:
            return self._interest_metrics(known, exclude_seen)

        return means | about(len(self._catalog), cases, exclude_seen, measure_interests)

    def _interest_metrics(
        self, cases: list[EvaluationCase], exclude_seen: bool
    ) -> dict[str, float]:
        cosines, rows, found_by = [], [], []
        shares: list[float] = []
        for block, interests in self._blocks(cases):
            content = interests[:, :, : self._encoder.content].cpu().numpy()
            cosines.append(pairwise_cosine(content))
            best = self._best(interests, None, INTEREST_CUTOFF)
            rows += [of_user[of_user > 0] for of_user in best.rows]
            found_by += [
                of_user[taken > 0] for of_user, taken in zip(best.interests, best.rows, strict=True)
            ]
            shares += self._distinct_shares(block, interests, exclude_seen)
        count = self._encoder.interests
        metrics = of_rankings(np.concatenate(cosines), rows, found_by, count, self._catalog)
        return metrics | {DISTINCT_SHARE: float(np.mean(shares))}

    def _distinct_shares(
        self, cases: Sequence[EvaluationCase], interests: Tensor, exclude_seen: bool
    ) -> Iterator[float]:
        seen = [{*case.history} for case in cases]
        depth = INTEREST_CUTOFF + max(map(len, seen))
        of_interest = [
            self._best(interests[:, k : k + 1], None, depth).rows.tolist()
            for k in range(interests.shape[1])
        ]
        for known, *lists in zip(seen, *of_interest, strict=True):
            # As many as are left when those of the history are removed.
            cut = [[row for row in rows if row][: INTEREST_CUTOFF + len(known)] for rows in lists]
            kept = [without(rows, known if exclude_seen else set()) for rows in cut]
            yield distinct_share((), CaseView((), lists=kept), INTEREST_CUTOFF)

    def _blocks(
        self, cases: Sequence[EvaluationCase]
    ) -> Iterator[tuple[Sequence[EvaluationCase], Tensor]]:
        size = min(max(_SCORES // len(self._vectors), 1), _MOST_USERS)
        for start in range(0, len(cases), size):
            block = cases[start : start + size]
            yield block, self.encode(block)

    def _best(self, interests: Tensor, seen: Sequence[Sequence[int]] | None, count: int) -> Best:
        """The `count` best items for interests (B, K, D), without those of `seen`."""
        scores, found_by = interests[:, 0] @ self._vectors.T, None
        for k in range(1, interests.shape[1]):
            other = interests[:, k] @ self._vectors.T
            if found_by is None:
                found_by = torch.zeros_like(scores, dtype=torch.int8)
            found_by.masked_fill_(other > scores, k)
            torch.maximum(scores, other, out=scores)
        scores[:, 0] = -torch.inf
        if seen is not None:
            users = np.repeat(np.arange(len(seen)), [len(rows) for rows in seen])
            excluded = users, np.concatenate([np.asarray(rows) for rows in seen])
            places = [torch.from_numpy(part).to(scores.device) for part in excluded]
            scores[places[0], places[1]] = -torch.inf
        top = scores.topk(min(count, scores.shape[1]), dim=1)
        rows = top.indices.masked_fill(top.values == -torch.inf, 0)
        which = torch.zeros_like(rows) if found_by is None else found_by.gather(1, rows).long()
        return Best(rows.cpu().numpy(), which.cpu().numpy())
