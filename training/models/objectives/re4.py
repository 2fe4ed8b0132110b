"""Re4's backward flows: losses that help the forward flow learn and are not shipped.

Zhang et al., WWW 2022, Eq. 3-12. All of them see the raw interests, before an output head.
Shapes: B batch, L history length, K interests, D dimension.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from index.encoders import Interests
from training.models.objectives import Forward, LossTerm

AuxiliaryNorm = Literal["positives", "cells"]
Contrast = Literal["paper", "released"]


def positives(interests: Interests, mask: Tensor, gamma: float | None) -> Tensor:
    """P_k (B, K, L) bool: the history items that an interest attends to more than gamma (Eq. 3).

    gamma None is the uniform share 1 / (number of items in the history). An indicator: no gradient.
    """
    threshold = 1 / mask.sum(dim=1)[:, None, None] if gamma is None else gamma
    return (interests.attention.detach() > threshold) & mask[:, None, :]


def mean_over(losses: Tensor, chosen: Tensor, norm: AuxiliaryNorm) -> Tensor:
    """Sum of `losses` (P,), one a true cell of `chosen`, over the number of these or of all cells.

    The paper sums; `cells` (B * K * L, padding included) is what the authors' code divides by. The
    coefficients mean different things under each.
    """
    count = losses.numel() if norm == "positives" else chosen.numel()
    return losses.sum() / max(count, 1)


class ReContrast(LossTerm):
    """Eq. 5-6: each interest is told from all but its own items by InfoNCE, one term a positive.

    Negatives of an interest: the history items that are not its positives, the other interests, and
    items outside the history, for which the next row's history of the batch serves.
    contrast "released", the authors' code, leaves the other positives in the denominator too.
    """

    def __init__(
        self,
        temperature: float = 0.02,
        gamma: float | None = None,
        norm: AuxiliaryNorm = "positives",
        contrast: Contrast = "paper",
    ) -> None:
        super().__init__()
        self._temperature, self._gamma = temperature, gamma
        self._norm: AuxiliaryNorm = norm
        self._contrast: Contrast = contrast

    def forward(self, batch: Forward) -> Tensor:
        rows, vectors, mask = batch.history
        chosen = positives(batch.interests, mask, self._gamma)
        interests = F.normalize(batch.interests.raw, dim=2)
        items = F.normalize(vectors, dim=2)
        outside_rows = rows.roll(1, dims=0)
        outside = (outside_rows > 0) & ~(outside_rows[:, :, None] == rows[:, None, :]).any(dim=2)

        own = interests @ items.transpose(1, 2) / self._temperature  # (B, K, L)
        others = interests @ interests.transpose(1, 2) / self._temperature  # (B, K, K)
        beyond = interests @ items.roll(1, dims=0).transpose(1, 2) / self._temperature  # (B, K, L)

        count = interests.shape[1]
        itself = torch.eye(count, dtype=torch.bool, device=mask.device)
        excluded = ~mask[:, None, :] if self._contrast == "released" else chosen | ~mask[:, None, :]
        negatives = torch.cat(
            [
                own.masked_fill(excluded, -torch.inf),
                others.masked_fill(itself, -torch.inf),
                beyond.masked_fill(~outside[:, None, :], -torch.inf),
            ],
            dim=2,
        ).logsumexp(dim=2)
        example, interest, _ = where = chosen.nonzero(as_tuple=True)
        against = negatives[example, interest] - own[where]
        # released: the positive is among the denominator's items already.
        losses = against if self._contrast == "released" else F.softplus(against)
        return mean_over(losses, chosen, self._norm)


class ReAttend(LossTerm):
    """Eq. 7-8: the attention should be what the served score z_k . x_i would make it.

    Cross-entropy of the attention against softmax(z_k . x_i), mean over interests and examples.
    Gradient flows into both sides. Never below the entropy of the latter.
    """

    def forward(self, batch: Forward) -> Tensor:
        _, vectors, mask = batch.history
        scores = batch.interests.raw @ vectors.transpose(1, 2)
        wanted = scores.masked_fill(~mask[:, None, :], -torch.inf).softmax(dim=2)
        given = batch.interests.attention.clamp_min(torch.finfo(wanted.dtype).tiny).log()
        return -(wanted * given).sum(dim=2).mean()


class ReConstruct(LossTerm):
    """Eq. 9-12: each interest must give back the vectors of its positives.

    C_k = reshape(W4 z_k) to (L, D_b); beta_kij = softmax_i(w_j . tanh(W3 c_ki));
    x_kj = sum_i beta_kij W5 c_ki. The paper prints W5 as (D_b, D_b), which cannot be compared with
    an item vector; here it maps to D. There is one w_j a place of the history, counted from the
    newest, so this is the one part of Re4 that knows order.
    """

    def __init__(
        self,
        dim: int,
        history_length: int,
        hidden: int = 32,
        gamma: float | None = None,
        norm: AuxiliaryNorm = "positives",
    ) -> None:
        super().__init__()
        self._gamma = gamma
        self._norm: AuxiliaryNorm = norm
        self._shape = (history_length, hidden)
        self.upsample = nn.Linear(dim, history_length * hidden, bias=False)  # W4
        self.mix = nn.Linear(hidden, hidden, bias=False)  # W3
        self.place = nn.Linear(hidden, history_length, bias=False)  # w_j, one row a place
        self.restore = nn.Linear(hidden, dim, bias=False)  # W5

    def forward(self, batch: Forward) -> Tensor:
        _, vectors, mask = batch.history
        chosen = positives(batch.interests, mask, self._gamma)
        # An interest without positives (all of a history of one item) has nothing to give back.
        active = chosen.any(dim=2)
        units = self.upsample(batch.interests.raw[active]).unflatten(1, self._shape)  # (A, L, D_b)
        beta = self.place(torch.tanh(self.mix(units))).softmax(dim=1)  # over i: (A, i, j)
        # W5 after the sum over i, and for the positives alone: most places are none.
        restored = self.restore((beta.transpose(1, 2) @ units)[chosen[active]])
        example, _, item = chosen.nonzero(as_tuple=True)
        losses = (restored - vectors[example, item]).square().sum(dim=1)
        return mean_over(losses, chosen, self._norm)
