"""Main losses under which interests differ by construction, and the term that keeps all in use.

Shapes: B batch, K interests, D dimension, S negatives.
"""

from typing import ClassVar

import torch
from torch import Tensor

from index.encoders.arguments import Merge
from training.models.objectives.interface import LossInputs, LossTerm
from training.models.objectives.registry import register_auxiliary, register_main
from training.models.objectives.softmax import (
    ServedMax,
    gather_interests,
    softmax_loss,
    target_scores,
)


@register_main("gated-max", "on the maximum of scores and a gate")
class GatedMax(ServedMax):
    """Softmax on s_i = max_k (z_k . e_i + g_k), g = log softmax(G [z_1; ...; z_K]).

    L = -log(exp(s_y) / sum_i exp(s_i)). The gate is one more coordinate of the interests, so this
    is ServedMax on vectors that have it. Published in no paper; a hard form of the mixture of
    softmaxes (Yang et al., ICLR 2018, Eq. 6).
    """

    merge: ClassVar[Merge] = "gated"


@register_main("partitioned-max", "on the interest of the item's part")
class PartitionedMax(LossTerm):
    """Softmax on s_i = z_c(i) . e_i, c(i) the part of item i: interest k scores part k alone.

    L = -log(exp(s_y) / sum_i exp(s_i)): one softmax over the items of all parts. Published in no
    paper; DisMIR (KDD 2024) partitions items too. Each item is scored once, whatever K is.
    """

    merge: ClassVar[Merge] = "partitioned"

    def forward(self, batch: LossInputs) -> Tensor:
        assert batch.target_parts is not None
        assert batch.negative_parts is not None
        interests = batch.interests.vectors
        own = gather_interests(interests, batch.target_parts)
        order = batch.negative_parts.argsort(stable=True)
        counts = torch.bincount(batch.negative_parts, minlength=interests.shape[1]).tolist()
        groups = torch.split(batch.negative_vectors[order], counts)
        scores = [interests[:, k] @ group.T for k, group in enumerate(groups)]
        log_q = batch.negative_log_q
        ordered = batch._replace(
            negatives=batch.negatives[order],
            negative_log_q=None if log_q is None else log_q[order],
        )
        return softmax_loss(
            ordered, (own * batch.target_vectors).sum(dim=1), torch.cat(scores, dim=1)
        )


@register_auxiliary(
    "mutual_information", "coefficient of the interests' mutual information; 0 turns it off"
)
class MutualInformation(LossTerm):
    """-(H(mean_B p) - mean_B H(p)), p = softmax_k(z_k . e_y): minus the mutual information of
    example and interest, in nats (Krause et al., NIPS 2010, Eq. 2).

    It falls if one interest is decided for each example, and over a batch all are. Of cosines, the
    scores are over the temperature. A gate has no part in p.
    """

    def forward(self, batch: LossInputs) -> Tensor:
        scores, gate = target_scores(batch), batch.interests.prediction
        if gate is not None:
            scores = scores - gate.log_softmax(dim=1)
        share = scores.softmax(dim=1)
        return _entropy(share).mean() - _entropy(share.mean(dim=0))


def _entropy(share: Tensor) -> Tensor:
    """Of distributions (..., K), in nats."""
    return -torch.xlogy(share, share).sum(dim=-1)
