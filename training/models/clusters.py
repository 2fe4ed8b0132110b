"""Clusters of items by their vectors: spherical k-means."""

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

_ROUNDS = 12  # of k-means
_STARTS = 4
_CLEARLY_BETTER = 1.01  # mean cosine to the own centre, for a fresh start to replace the parts


def cluster_centers(vectors: Tensor, count: int) -> Tensor:
    """The unit centres (count, D) of items (N, D), the best of some starts that torch draws."""
    unit = F.normalize(vectors, dim=1)
    starts = [_draw_centers(unit, count) for _ in range(_STARTS)]
    parts, _ = max((_k_means(unit, start) for start in starts), key=lambda result: result[1])
    return centers_of(unit, parts, count, unit[:count])


def partition(vectors: Tensor, parts: Tensor, count: int) -> Tensor:
    """Parts (N,), 0..count - 1, of items (N, D) by spherical k-means, continued from `parts` (N,).

    A fresh start, from items drawn by torch, replaces them only where it is clearly better. Its
    labels are matched one to one with the former ones, so that most items stay (Kuhn, 1955).
    """
    unit = F.normalize(vectors, dim=1)
    former_centers = centers_of(unit, parts, count, unit[:count])
    continued, fresh = _k_means(unit, former_centers), _k_means(unit, _draw_centers(unit, count))
    if fresh[1] < _CLEARLY_BETTER * continued[1]:
        return continued[0]
    overlap = torch.zeros(count, count, dtype=torch.int64, device=parts.device)
    overlap.index_put_((fresh[0], parts), torch.ones_like(parts), accumulate=True)
    _, label = linear_sum_assignment(overlap.cpu().numpy(), maximize=True)
    return torch.from_numpy(label).to(parts.device)[fresh[0]]


def _k_means(unit: Tensor, centers: Tensor) -> tuple[Tensor, float]:
    """The parts (N,) of unit vectors (N, D), and their mean cosine to the centre of their part."""
    for _ in range(_ROUNDS):
        parts = (unit @ centers.T).argmax(dim=1)
        centers = centers_of(unit, parts, len(centers), centers)
    cosine, parts = (unit @ centers.T).max(dim=1)
    return parts, float(cosine.mean())


def _draw_centers(unit: Tensor, count: int) -> Tensor:
    """Items (K, D) as first centres, each drawn in proportion to 1 - cosine to the nearest one
    before it (k-means++; Arthur and Vassilvitskii, 2007)."""
    drawn = [unit[torch.randint(len(unit), (), device=unit.device)]]
    for _ in range(count - 1):
        distance = 1 - (unit @ torch.stack(drawn).T).max(dim=1).values
        drawn.append(unit[torch.multinomial(distance.clamp_min(1e-9), 1)[0]])
    return torch.stack(drawn)


def centers_of(unit: Tensor, parts: Tensor, count: int, instead: Tensor) -> Tensor:
    """The unit centres (K, D) of the parts; of an empty part, that of `instead` (K, D)."""
    sums = unit.new_zeros(count, unit.shape[1]).index_add_(0, parts, unit)
    empty = torch.bincount(parts, minlength=count) == 0
    return F.normalize(torch.where(empty[:, None], instead, sums), dim=1)
