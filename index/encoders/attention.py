"""Interests by self-attention over the history: Re4's forward flow, and ComiRec's."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from index.encoders.interface import Encoder, History, Interests


def masked_softmax(logits: Tensor, mask: Tensor) -> Tensor:
    """Softmax over L that gives padding no weight: logits (B, K, L), mask (B, L)."""
    return logits.masked_fill(~mask[:, None, :], -torch.inf).softmax(dim=-1)


def over_items(score: Callable[[Tensor], Tensor], vectors: Tensor, mask: Tensor) -> Tensor:
    """score, from (n, D) to (n, K), of the items in vectors (B, L, D) -> (B, L, K), 0 at padding.

    Padding, more than half of the places in real logs, is left out of the widest product.
    """
    scores = score(vectors[mask])
    logits = scores.new_zeros(*mask.shape, scores.shape[1])
    logits[mask] = scores
    return logits


class Re4Encoder(Encoder):
    """a_k = softmax_j(w_k . tanh(W1 x_j)), z_k = sum_j a_kj W2 x_j (Zhang et al. 2022, Eq. 1-2).

    The paper knows no positions: permuting a history changes nothing. `recency` adds b_kt, learnt,
    to the logit of the item t places from the newest, so that an interest can be of late or of old.
    The paper has no head; `head="tanh"` adds the authors' released one, z' = tanh(W z + b), for
    serving and the main loss, while the backward flows see z.
    """

    def __init__(
        self,
        dim: int = 64,
        interests: int = 8,
        hidden: int = 256,
        history: int = 20,
        recency: bool = False,
        head: Literal["none", "tanh"] = "none",
    ) -> None:
        super().__init__()
        self.dim, self.interests = dim, interests
        self.recency = nn.Parameter(torch.zeros(history, interests)) if recency else None
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
        logits = over_items(self._score, history.vectors, history.mask)
        if self.recency is not None:
            logits = logits + self.recency[-history.mask.shape[1] :]
        attention = masked_softmax(logits.transpose(1, 2), history.mask)
        # W2 after the sum over items, not before: the same by linearity, for K vectors, not L.
        raw = self.value(attention @ history.vectors)
        return Interests(self.head(raw), attention, raw)

    def _score(self, vectors: Tensor) -> Tensor:
        result: Tensor = self.score(torch.tanh(self.project(vectors)))
        return result


class ComirecSaEncoder(Encoder):
    """Cen et al., ComiRec, KDD 2020: A = softmax(V2 tanh(V1 (X + P))), Z = A X.

    Positions P, counted from the newest item, enter the attention alone; the values are the item
    vectors as they are. biases=False is what REMI's authors train.
    """

    def __init__(
        self,
        dim: int = 64,
        interests: int = 8,
        hidden: int = 256,
        history: int = 20,
        biases: bool = True,
    ) -> None:
        super().__init__()
        self.dim, self.interests = dim, interests
        self.position = nn.Parameter(torch.randn(history, dim) * 0.1)
        self.project = nn.Linear(dim, hidden, bias=biases)
        self.score = nn.Linear(hidden, interests, bias=biases)

    def forward(self, history: History) -> Interests:
        placed = history.vectors + self.position[-history.mask.shape[1] :]
        logits = over_items(self._score, placed, history.mask)
        attention = masked_softmax(logits.transpose(1, 2), history.mask)
        vectors = attention @ history.vectors
        return Interests(vectors, attention, vectors)

    def _score(self, vectors: Tensor) -> Tensor:
        result: Tensor = self.score(torch.tanh(self.project(vectors)))
        return result
