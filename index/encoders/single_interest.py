"""One vector per user: the baselines that every multi-interest paper compares with."""

from typing import Annotated, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from index.encoders.arguments import EncoderArguments, Hidden, HistoryLength, TrainingOnly
from index.encoders.interface import Encoder, History, Interests
from index.encoders.recurrent import last_state
from index.encoders.registry import register


@register("youtube-dnn")
class YoutubeDnnEncoder(Encoder):
    """Covington et al., RecSys 2016: the mean of the history's vectors through a perceptron."""

    class Arguments(EncoderArguments):
        hidden: Hidden

    interests = 1

    def __init__(self, arguments: Arguments) -> None:
        super().__init__()
        dim, hidden = arguments.dim, arguments.hidden
        self.dim = dim
        self.layers = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, dim))

    def forward(self, history: History) -> Interests:
        share = history.mask / history.mask.sum(dim=1, keepdim=True)
        mean = (share[:, None, :] @ history.vectors).squeeze(1)
        return _single(self.layers(mean), share)


@register("gru4rec")
class Gru4RecEncoder(Encoder):
    """Hidasi et al., ICLR 2016: the last state of a GRU, projected to D.

    `attention` is 1 on the newest item, whose state it is.
    """

    class Arguments(EncoderArguments):
        hidden: Hidden

    interests = 1

    def __init__(self, arguments: Arguments) -> None:
        super().__init__()
        self.dim = arguments.dim
        self.recurrent = nn.GRU(arguments.dim, arguments.hidden, batch_first=True)
        self.project = nn.Linear(arguments.hidden, arguments.dim)

    def forward(self, history: History) -> Interests:
        state = last_state(self.recurrent, history.vectors, history.mask)
        return _single(self.project(state), _newest_only(history.mask))


@register("sasrec")
class SasRecEncoder(Encoder):
    """Kang and McAuley, ICDM 2018: the last state of a causal transformer.

    Positions are counted from the newest item, so padding changes nothing.
    """

    class Arguments(EncoderArguments):
        history: HistoryLength
        layers: int = Field(2, ge=1, description="sasrec: number of transformer blocks")
        heads: int = Field(2, ge=1, description="sasrec: number of attention heads; divides D")
        dropout: Annotated[float, TrainingOnly] = Field(
            0.2, ge=0, lt=1, description="share of the entries dropped in a block"
        )

        @model_validator(mode="after")
        def _heads_divide_dim(self) -> Self:
            if self.dim % self.heads:
                raise ValueError(f"heads = {self.heads} does not divide dim = {self.dim}")
            return self

    interests = 1

    def __init__(self, arguments: Arguments) -> None:
        super().__init__()
        dim = arguments.dim
        self.dim = dim
        self.position = nn.Parameter(torch.randn(arguments.history, dim).mul_(0.1))
        self.blocks = nn.ModuleList(
            _Block(dim, arguments.heads, arguments.dropout) for _ in range(arguments.layers)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, history: History) -> Interests:
        length = history.mask.shape[1]
        states = history.vectors + self.position[-length:]
        causal = torch.ones(length, length, dtype=torch.bool, device=states.device).tril()
        diagonal = torch.eye(length, dtype=torch.bool, device=states.device)
        # Padding attends to itself: a softmax over nothing would be NaN.
        visible = (causal & history.mask[:, None, :]) | diagonal
        for block in self.blocks:
            states = block(states, visible[:, None])
        return _single(self.norm(states[:, -1]), _newest_only(history.mask))


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
        """states (B, L, D); visible (B, 1, L, L): which keys a query may attend to."""
        mixed = self.mix(self.before_attention(states)).unflatten(2, (3, self._heads, -1))
        query, key, value = mixed.permute(2, 0, 3, 1, 4)  # each (B, heads, L, D / heads)
        rate = self._dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(query, key, value, visible, rate)
        states = states + self.drop(self.out(attended.transpose(1, 2).flatten(2)))
        result: Tensor = states + self.drop(self.layers(self.before_layers(states)))
        return result


def _single(vector: Tensor, attention: Tensor) -> Interests:
    """One interest: vector (B, D), attention (B, L)."""
    vectors = vector[:, None, :]
    return Interests(vectors, attention[:, None, :], vectors)


def _newest_only(mask: Tensor) -> Tensor:
    """(B, L): 1 in the last column, 0 elsewhere."""
    share = torch.zeros(mask.shape, device=mask.device)
    share[:, -1] = 1
    return share
