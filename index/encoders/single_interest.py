"""One vector per user: the baselines that every multi-interest paper compares with."""

import torch
from torch import Tensor, nn

from index.encoders.arguments import EncoderArguments, Hidden, TransformerArguments
from index.encoders.interface import Encoder, History, Interests, prefixes
from index.encoders.recurrent import all_states, last_state
from index.encoders.registry import register
from index.encoders.transformer_blocks import PlainBlock, causal_mask


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

    causal = True
    interests = 1

    def __init__(self, arguments: Arguments) -> None:
        super().__init__()
        self.dim = arguments.dim
        self.recurrent = nn.GRU(arguments.dim, arguments.hidden, batch_first=True)
        self.project = nn.Linear(arguments.hidden, arguments.dim)

    def forward(self, history: History) -> Interests:
        state = last_state(self.recurrent, history.vectors, history.mask)
        return _single(self.project(state), _newest_only(history.mask))

    def prefix_interests(self, history: History, ends: Tensor) -> Interests:
        states = all_states(self.recurrent, history.vectors, history.mask)
        return prefixes(self.project(states[ends])[:, None])


@register("sasrec")
class SasRecEncoder(Encoder):
    """Kang and McAuley, ICDM 2018: the last state of a causal transformer.

    Positions are counted from the newest item, so padding changes nothing.
    """

    class Arguments(TransformerArguments):
        pass

    causal = True
    interests = 1

    def __init__(self, arguments: Arguments) -> None:
        super().__init__()
        dim = arguments.dim
        self.dim = dim
        self.position = nn.Parameter(torch.randn(arguments.history, dim).mul_(0.1))
        self.blocks = nn.ModuleList(
            PlainBlock(dim, arguments.heads, arguments.dropout) for _ in range(arguments.layers)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, history: History) -> Interests:
        return _single(self.norm(self._states(history)[:, -1]), _newest_only(history.mask))

    def prefix_interests(self, history: History, ends: Tensor) -> Interests:
        """As if each prefix were followed by the rest of its history: a position is counted from
        the newest item of the history, as Kang and McAuley train it."""
        return prefixes(self.norm(self._states(history)[ends])[:, None])

    def _states(self, history: History) -> Tensor:
        """(B, L, D), before the last norm."""
        states = history.vectors + self.position[-history.mask.shape[1] :]
        visible = causal_mask(history.mask)[:, None]
        for block in self.blocks:
            states = block(states, visible)
        return states


def _single(vector: Tensor, attention: Tensor) -> Interests:
    """One interest: vector (B, D), attention (B, L)."""
    vectors = vector[:, None, :]
    return Interests(vectors, attention[:, None, :], vectors)


def _newest_only(mask: Tensor) -> Tensor:
    """(B, L): 1 in the last column, 0 elsewhere."""
    share = torch.zeros(mask.shape, device=mask.device)
    share[:, -1] = 1
    return share
