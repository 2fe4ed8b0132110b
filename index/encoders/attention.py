"""Interests by self-attention over the history: Re4's forward flow."""

from typing import Literal

import torch
from torch import Tensor, nn

from index.encoders.interface import Encoder, History, Interests


def masked_softmax(logits: Tensor, mask: Tensor) -> Tensor:
    """Softmax over L that gives padding no weight: logits (B, K, L), mask (B, L)."""
    return logits.masked_fill(~mask[:, None, :], -torch.inf).softmax(dim=-1)


class Re4Encoder(Encoder):
    """a_k = softmax_j(w_k . tanh(W1 x_j)), z_k = sum_j a_kj W2 x_j (Zhang et al. 2022, Eq. 1-2).

    Knows no positions: permuting a history changes nothing. The paper has no head; `head="tanh"`
    adds the authors' released one, z' = tanh(W z + b), for serving and the main loss, while the
    backward flows see z.
    """

    def __init__(
        self,
        dim: int = 64,
        interests: int = 8,
        hidden: int = 256,
        head: Literal["none", "tanh"] = "none",
    ) -> None:
        super().__init__()
        self.dim, self.interests = dim, interests
        self.project = nn.Linear(dim, hidden, bias=False)  # W1
        self.score = nn.Linear(hidden, interests, bias=False)  # w_k, one row an interest
        self.value = nn.Linear(dim, dim, bias=False)  # W2
        # The authors draw N(0, 1), which saturates the tanh: thousands of steps pass before it
        # learns. By fan-in it is hundreds, and fewer where interests begin as means of items.
        for matrix in (self.project, self.score):
            nn.init.normal_(matrix.weight, std=matrix.in_features**-0.5)
        nn.init.eye_(self.value.weight)
        self.head = (
            nn.Sequential(nn.Linear(dim, dim), nn.Tanh()) if head == "tanh" else nn.Identity()
        )

    def forward(self, history: History) -> Interests:
        # Padding, more than half of the places in real logs, is left out of the widest product.
        scores = self.score(torch.tanh(self.project(history.vectors[history.mask])))
        logits = scores.new_zeros(*history.mask.shape, self.interests)
        logits[history.mask] = scores  # (B, L, K)
        attention = masked_softmax(logits.transpose(1, 2), history.mask)
        # W2 after the sum over items, not before: the same by linearity, for K vectors, not L.
        raw = self.value(attention @ history.vectors)
        return Interests(self.head(raw), attention, raw)
