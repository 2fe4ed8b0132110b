"""The attention scorer of the self-attentive encoders: softmax(score(tanh(project(x))))."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from index.encoders.served_layers import serve_linear, softmax


def self_attention(
    project: nn.Linear,
    score: nn.Linear,
    keys: Tensor,
    mask: Tensor,
    position_bias: Tensor | None = None,
) -> Tensor:
    """Shares (B, K, L) of the items in K interests; they sum to 1 over L and are 0 at padding.

    project: D to hidden; score: hidden to K. keys (B, L, D); mask (B, L); position_bias (L, K) is
    added to the logits. Padding, more than half of a batch in real logs, is left out of the widest
    product.
    """
    scores: Tensor = score(torch.tanh(project(keys[mask])))
    logits = scores.new_zeros(*mask.shape, scores.shape[1])
    logits[mask] = scores
    if position_bias is not None:
        logits = logits + position_bias
    return _masked_softmax(logits.transpose(1, 2), mask)


def _masked_softmax(logits: Tensor, mask: Tensor) -> Tensor:
    """Softmax over L that gives padding no weight: logits (B, K, L), mask (B, L)."""
    return logits.masked_fill(~mask[:, None, :], -torch.inf).softmax(dim=-1)


def serve_self_attention(
    project: nn.Linear,
    score: nn.Linear,
    keys: NDArray[np.float32],
    mask: NDArray[np.bool_],
    position_bias: Tensor | None = None,
) -> NDArray[np.float32]:
    """As self_attention, in numpy.

    Each history is a product of its own, padding included, so that its interests, to the bit, do
    not depend on the others of its batch.
    """
    scores = serve_linear(score, np.tanh(serve_linear(project, keys)))
    logits = np.where(mask[:, :, None], scores, np.float32(-np.inf))
    if position_bias is not None:
        logits += position_bias.detach().numpy()
    return softmax(logits, axis=1).transpose(0, 2, 1)
