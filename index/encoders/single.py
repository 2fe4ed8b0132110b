"""One vector a user: the baselines that every multi-interest paper compares with."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from index.encoders.interface import Encoder, History, Interests


def _one(vector: Tensor, attention: Tensor) -> Interests:
    """vector (B, D), attention (B, L)."""
    vectors = vector[:, None, :]
    return Interests(vectors, attention[:, None, :], vectors)


def _uniform(mask: Tensor) -> Tensor:
    return mask / mask.sum(dim=1, keepdim=True)


class YoutubeDnnEncoder(Encoder):
    """Covington et al., RecSys 2016: the mean of the history's vectors through a perceptron."""

    interests = 1

    def __init__(self, dim: int = 64, hidden: int = 256) -> None:
        super().__init__()
        self.dim = dim
        self.layers = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, dim))

    def forward(self, history: History) -> Interests:
        share = _uniform(history.mask)
        mean = (share[:, None, :] @ history.vectors).squeeze(1)
        return _one(self.layers(mean), share)


class Gru4RecEncoder(Encoder):
    """Hidasi et al., ICLR 2016: the last state of a GRU, projected to D.

    All of `attention` is on the newest item, whose state it is.
    """

    interests = 1

    def __init__(self, dim: int = 64, hidden: int = 256) -> None:
        super().__init__()
        self.dim = dim
        self.recurrent = nn.GRU(dim, hidden, batch_first=True)
        self.project = nn.Linear(hidden, dim)

    def forward(self, history: History) -> Interests:
        state = last_state(self.recurrent, history.vectors, history.mask)
        return _one(self.project(state), newest(history.mask))


class SasRecEncoder(Encoder):
    """Kang and McAuley, ICDM 2018: the last state of a causal transformer.

    Places are counted from the newest item, so that padding changes nothing.
    """

    interests = 1

    def __init__(
        self,
        dim: int = 64,
        history: int = 20,
        layers: int = 2,
        heads: int = 2,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.position = nn.Parameter(torch.randn(history, dim) * 0.1)
        self.blocks = nn.ModuleList(_Block(dim, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)

    def forward(self, history: History) -> Interests:
        length = history.mask.shape[1]
        states = history.vectors + self.position[-length:]
        causal = torch.ones(length, length, dtype=torch.bool, device=states.device).tril()
        itself = torch.eye(length, dtype=torch.bool, device=states.device)
        # Padding sees itself, or its softmax would be over nothing.
        visible = (causal & history.mask[:, None, :]) | itself
        for block in self.blocks:
            states = block(states, visible[:, None])
        return _one(self.norm(states[:, -1]), newest(history.mask))


class _Block(nn.Module):
    """Attention and a perceptron, each with a norm before and a residual around it."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self._heads, self._dropout = heads, dropout
        self.before_attention, self.before_layers = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.mix = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.layers = nn.Sequential(
            nn.Linear(dim, dim), nn.ReLU(), nn.Dropout(dropout), nn.Linear(dim, dim)
        )
        self.drop = nn.Dropout(dropout)

    def forward(self, states: Tensor, visible: Tensor) -> Tensor:
        """states (B, L, D); visible (B, 1, L, L): which key a query may look at."""
        mixed = self.mix(self.before_attention(states)).unflatten(2, (3, self._heads, -1))
        query, key, value = mixed.permute(2, 0, 3, 1, 4)  # each (B, heads, L, D / heads)
        rate = self._dropout if self.training else 0.0
        seen = F.scaled_dot_product_attention(query, key, value, visible, rate)
        states = states + self.drop(self.out(seen.transpose(1, 2).flatten(2)))
        result: Tensor = states + self.drop(self.layers(self.before_layers(states)))
        return result


def last_state(recurrent: nn.GRU, vectors: Tensor, mask: Tensor) -> Tensor:
    """The state (B, H) of a GRU after the newest item; padding is neither read nor paid for."""
    count = mask.sum(dim=1)
    # Histories stand at the right; a packed sequence is cut from the left.
    places = torch.arange(mask.shape[1], device=mask.device) - count[:, None]
    aligned = vectors.gather(1, (places % mask.shape[1])[:, :, None].expand_as(vectors))
    packed = pack_padded_sequence(aligned, count.cpu(), batch_first=True, enforce_sorted=False)
    state: Tensor = recurrent(packed)[1]
    return state[-1]


def newest(mask: Tensor) -> Tensor:
    """(B, L): all on the last column."""
    share = torch.zeros(mask.shape, device=mask.device)
    share[:, -1] = 1
    return share
