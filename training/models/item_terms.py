"""The coordinates of item vectors after their content; and a partition of the items."""

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from index.encoders.arguments import Merge

_ROUNDS = 12  # of k-means
_CLEARLY_BETTER = 1.01  # mean cosine to the own centre, for a fresh start to replace the parts


class ItemTerms(nn.Module):
    """What ScoreTermsEncoder's interests meet in an item: its bias, 1 for the gate, its part.

    popularity (N + 1,): interactions of each row; the biases begin at its log. interests: K, also
    the number of parts.
    """

    def __init__(self, popularity: Tensor, item_bias: bool, merge: Merge, interests: int) -> None:
        super().__init__()
        self._merge, self._interests = merge, interests
        bias = popularity.clamp_min(1).log().float()
        bias[0] = 0
        self.bias = nn.Parameter(bias) if item_bias else None
        if merge == "partitioned":
            self.register_buffer("parts", torch.arange(len(popularity)) % interests)

    def append(self, content: Tensor, rows: Tensor) -> Tensor:
        """(n, D + terms) of the content (n, D) of rows (n,); zero for row 0."""
        terms = [content]
        is_item = (rows > 0).to(content.dtype)[:, None]
        if self.bias is not None:
            terms.append(self.bias[rows][:, None] * is_item)
        if self._merge == "gated":
            terms.append(is_item)
        if (parts := self.parts_of(rows)) is not None:
            terms.append(F.one_hot(parts, self._interests) * is_item)
        return torch.cat(terms, dim=1) if len(terms) > 1 else content

    def parts_of(self, rows: Tensor) -> Tensor | None:
        """(n,) the part of each row, 0..K - 1; None without a partition."""
        if self._merge != "partitioned":
            return None
        assert isinstance(self.parts, Tensor)
        return self.parts[rows]

    def take(self, rows: Tensor, terms: Tensor, content: Tensor) -> None:
        """Take over the terms (n, T) that rows (n,) had in a release of the same arguments.

        content (N + 1, D): an item of no such row joins the part whose centre is nearest.
        """
        if self.bias is not None:
            self.bias[rows] = terms[:, 0]
        if self._merge == "partitioned":
            assert isinstance(self.parts, Tensor)
            parts = terms[:, -self._interests :].argmax(dim=1)
            unit = F.normalize(content, dim=1)
            centers = _centers(unit[rows], parts, self._interests, unit[rows[: self._interests]])
            self.parts.copy_((unit @ centers.T).argmax(dim=1))
            self.parts[rows] = parts

    def refresh_parts(self, content: Tensor) -> None:
        """Cluster the items by their content (N + 1, D); a part keeps its interest."""
        if self._merge == "partitioned":
            assert isinstance(self.parts, Tensor)
            self.parts[1:] = partition(content[1:], self.parts[1:], self._interests)


def partition(vectors: Tensor, parts: Tensor, count: int) -> Tensor:
    """Parts (N,), 0..count - 1, of items (N, D) by spherical k-means, continued from `parts` (N,).

    A fresh start, from items drawn by torch, replaces them only where it is clearly better. Its
    labels are matched one to one with the former ones, so that most items stay (Kuhn, 1955).
    """
    unit = F.normalize(vectors, dim=1)
    former_centers = _centers(unit, parts, count, unit[:count])
    continued, fresh = _k_means(unit, former_centers), _k_means(unit, _draw_centers(unit, count))
    if fresh[1] < _CLEARLY_BETTER * continued[1]:
        return continued[0]
    overlap = torch.zeros(count, count, dtype=torch.int64)
    overlap.index_put_((fresh[0], parts), torch.ones_like(parts), accumulate=True)
    _, label = linear_sum_assignment(overlap.numpy(), maximize=True)
    return torch.from_numpy(label)[fresh[0]]


def _k_means(unit: Tensor, centers: Tensor) -> tuple[Tensor, float]:
    """The parts (N,) of unit vectors (N, D), and their mean cosine to the centre of their part."""
    for _ in range(_ROUNDS):
        parts = (unit @ centers.T).argmax(dim=1)
        centers = _centers(unit, parts, len(centers), centers)
    cosine, parts = (unit @ centers.T).max(dim=1)
    return parts, float(cosine.mean())


def _draw_centers(unit: Tensor, count: int) -> Tensor:
    """Items (K, D) as first centres, each drawn in proportion to 1 - cosine to the nearest one
    before it (k-means++; Arthur and Vassilvitskii, 2007)."""
    drawn = [unit[torch.randint(len(unit), ())]]
    for _ in range(count - 1):
        distance = 1 - (unit @ torch.stack(drawn).T).max(dim=1).values
        drawn.append(unit[torch.multinomial(distance.clamp_min(1e-9), 1)[0]])
    return torch.stack(drawn)


def _centers(unit: Tensor, parts: Tensor, count: int, instead: Tensor) -> Tensor:
    """The unit centres (K, D) of the parts; of an empty part, that of `instead` (K, D)."""
    sums = torch.zeros(count, unit.shape[1]).index_add_(0, parts, unit)
    empty = torch.bincount(parts, minlength=count) == 0
    return F.normalize(torch.where(empty[:, None], instead, sums), dim=1)
