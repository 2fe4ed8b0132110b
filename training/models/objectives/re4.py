"""Re4's backward flows: losses that help the forward flow learn and are not shipped.

Zhang et al., WWW 2022, Eq. 3-12. All of them see the raw interests, before an output head.
Shapes: B batch, L history length, K interests, D dimension.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from index.encoders import Interests
from index.encoders.arguments import Dim, HistoryLength
from training.models.objectives.interface import LossArguments, LossInputs, LossTerm
from training.models.objectives.registry import register_auxiliary

AuxiliaryNorm = Literal["positives", "cells"]


class PositivesArguments(LossArguments):
    gamma: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="re-contrast, re-construct: attention above which an item is a positive; none "
        "means 1/length of the history",
    )
    auxiliary_norm: AuxiliaryNorm = Field(
        "positives", description="re-contrast, re-construct: what the mean is taken over"
    )


def positives(interests: Interests, mask: Tensor, gamma: float | None) -> Tensor:
    """P_k (B, K, L) bool: the history items that an interest attends to more than gamma (Eq. 3).

    gamma None is the uniform share 1 / (number of items in the history). An indicator: no gradient.
    """
    threshold = 1 / mask.sum(dim=1)[:, None, None] if gamma is None else gamma
    return (interests.attention.detach() > threshold) & mask[:, None, :]


def mean_over(losses: Tensor, positive: Tensor, norm: AuxiliaryNorm) -> Tensor:
    """Sum of `losses` (P,), one per true cell of `positive`, over the number of these or all cells.

    The paper sums; `cells` (B * K * L, padding included) is what the authors' code divides by. The
    coefficients mean different things under each.
    """
    count = losses.numel() if norm == "positives" else positive.numel()
    return losses.sum() / max(count, 1)


@register_auxiliary("recontrast", "coefficient of Re4's re-contrast; 0 turns it off")
class ReContrast(LossTerm):
    """Eq. 5-6: InfoNCE distinguishes each interest from all items but its own; one term a positive.

    Negatives of an interest: the history items that are not its positives, the other interests, and
    items outside the history: those of the next history in the batch.
    recontrast_denominator "released", the authors' code, leaves the other positives in the
    denominator too.
    """

    reads_history = True

    class Arguments(PositivesArguments):
        recontrast_temperature: float = Field(
            0.02, gt=0, description="re-contrast: temperature of the InfoNCE"
        )
        recontrast_denominator: Literal["paper", "released"] = Field(
            "paper",
            description="re-contrast: whether the denominator has the other positives: without "
            "them, as in the paper, or with them, as in the released code",
        )

    def __init__(self, arguments: Arguments) -> None:
        super().__init__()
        self._temperature, self._gamma = arguments.recontrast_temperature, arguments.gamma
        self._norm: AuxiliaryNorm = arguments.auxiliary_norm
        self._with_positives = arguments.recontrast_denominator == "released"

    def forward(self, batch: LossInputs) -> Tensor:
        rows, vectors, mask = batch.history[:3]
        positive = positives(batch.interests, mask, self._gamma)
        interests = F.normalize(batch.interests.raw, dim=2)
        items = F.normalize(vectors, dim=2)
        outside_rows = rows.roll(1, dims=0)
        outside = (outside_rows > 0) & ~(outside_rows[:, :, None] == rows[:, None, :]).any(dim=2)

        item_logits = interests @ items.transpose(1, 2) / self._temperature  # (B, K, L)
        interest_logits = interests @ interests.transpose(1, 2) / self._temperature  # (B, K, K)
        outside_logits = interests @ items.roll(1, dims=0).transpose(1, 2) / self._temperature

        diagonal = torch.eye(interests.shape[1], dtype=torch.bool, device=mask.device)
        padding = ~mask[:, None, :]
        excluded = padding if self._with_positives else positive | padding
        negatives = torch.cat(
            [
                item_logits.masked_fill(excluded, -torch.inf),
                interest_logits.masked_fill(diagonal, -torch.inf),
                outside_logits.masked_fill(~outside[:, None, :], -torch.inf),
            ],
            dim=2,
        ).logsumexp(dim=2)
        example, interest, _ = cells = positive.nonzero(as_tuple=True)
        margin = negatives[example, interest] - item_logits[cells]
        # released: the positive is among the denominator's items already.
        losses = margin if self._with_positives else F.softplus(margin)
        return mean_over(losses, positive, self._norm)


@register_auxiliary("reattend", "coefficient of Re4's re-attend; 0 turns it off")
class ReAttend(LossTerm):
    """Eq. 7-8: the attention should equal the softmax of the served scores z_k . x_i.

    Cross-entropy of the attention against softmax(z_k . x_i), mean over interests and examples.
    Gradient flows into both sides. Never below the entropy of the latter.
    """

    reads_history = True

    def forward(self, batch: LossInputs) -> Tensor:
        vectors, mask = batch.history.vectors, batch.history.mask
        scores = batch.interests.raw @ vectors.transpose(1, 2)
        expected = scores.masked_fill(~mask[:, None, :], -torch.inf).softmax(dim=2)
        tiny = torch.finfo(expected.dtype).tiny
        log_attention = batch.interests.attention.clamp_min(tiny).log()
        return -(expected * log_attention).sum(dim=2).mean()


@register_auxiliary("reconstruct", "coefficient of Re4's re-construct; 0 turns it off")
class ReConstruct(LossTerm):
    """Eq. 9-12: each interest must reconstruct the vectors of its positives.

    C_k = reshape(W4 z_k) to (L, D_b); beta_kij = softmax_i(w_j . tanh(W3 c_ki));
    x_kj = sum_i beta_kij W5 c_ki. The paper prints W5 as (D_b, D_b), which cannot be compared with
    an item vector; here it maps to D. There is one w_j per position of the history, counted from
    the newest, so this is the only part of Re4 that depends on order.
    """

    reads_history = True

    class Arguments(PositivesArguments):
        reconstruct_hidden: int = Field(
            32, ge=1, description="re-construct: D_b, width of the decoder"
        )
        dim: Dim
        history: HistoryLength

    def __init__(self, arguments: Arguments) -> None:
        super().__init__()
        hidden, length, dim = arguments.reconstruct_hidden, arguments.history, arguments.dim
        self._gamma = arguments.gamma
        self._norm: AuxiliaryNorm = arguments.auxiliary_norm
        self._shape = (length, hidden)
        self.upsample = nn.Linear(dim, length * hidden, bias=False)  # W4
        self.mix = nn.Linear(hidden, hidden, bias=False)  # W3
        self.position = nn.Linear(hidden, length, bias=False)  # w_j, one row per position
        self.restore = nn.Linear(hidden, dim, bias=False)  # W5

    def forward(self, batch: LossInputs) -> Tensor:
        vectors, mask = batch.history.vectors, batch.history.mask
        positive = positives(batch.interests, mask, self._gamma)
        # An interest without positives (every one, of a history of one item) reconstructs nothing.
        active = positive.any(dim=2)
        units = self.upsample(batch.interests.raw[active]).unflatten(1, self._shape)  # (A, L, D_b)
        beta = self.position(torch.tanh(self.mix(units))).softmax(dim=1)  # over i: (A, i, j)
        # W5 after the sum over i, and for the positives only: most positions are none.
        restored = self.restore((beta.transpose(1, 2) @ units)[positive[active]])
        example, _, item = positive.nonzero(as_tuple=True)
        losses = (restored - vectors[example, item]).square().sum(dim=1)
        return mean_over(losses, positive, self._norm)
