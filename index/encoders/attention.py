"""Interests by self-attention over the history: Re4's forward flow, and ComiRec's."""

from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn

from index.encoders.arguments import EncoderArguments, Hidden, HistoryLength, InterestCount
from index.encoders.interface import Encoder, History, Interests, ServedHistory, ServedInterests
from index.encoders.registry import register
from index.encoders.self_attention import self_attention, serve_self_attention
from index.encoders.served_layers import serve_linear


@register("re4")
class Re4Encoder(Encoder):
    """a_k = softmax_j(w_k . tanh(W1 x_j)), z_k = sum_j a_kj W2 x_j (Zhang et al. 2022, Eq. 1-2).

    The paper has no positions: permuting a history changes nothing. `recency` adds a learned b_kt
    to the logit of the item t positions before the newest, so that an interest can prefer recent or
    old items. The paper has no head; `head="tanh"` adds the authors' released one,
    z' = tanh(W z + b), for serving and the main loss, while the backward flows see z.
    """

    class Arguments(EncoderArguments):
        interests: InterestCount
        hidden: Hidden
        history: HistoryLength
        recency: bool = Field(
            False, description="re4: learned weight of positions; the paper has none"
        )
        head: Literal["none", "tanh"] = Field(
            "none", description="re4: output head; the paper has none"
        )

    def __init__(self, arguments: Arguments) -> None:
        super().__init__()
        dim, interests, hidden = arguments.dim, arguments.interests, arguments.hidden
        self.dim, self.interests = dim, interests
        self.recency = (
            nn.Parameter(torch.zeros(arguments.history, interests)) if arguments.recency else None
        )
        self.project = nn.Linear(dim, hidden, bias=False)  # W1
        self.score = nn.Linear(hidden, interests, bias=False)  # w_k, one row per interest
        self.value = nn.Linear(dim, dim, bias=False)  # W2
        # The authors draw N(0, 1), which saturates the tanh: it learns only after thousands of
        # steps. Scaled by fan-in it takes hundreds, and fewer where interests begin as item means.
        for matrix in (self.project, self.score):
            nn.init.normal_(matrix.weight, std=matrix.in_features**-0.5)
        nn.init.eye_(self.value.weight)
        self.head = (
            nn.Sequential(nn.Linear(dim, dim), nn.Tanh())
            if arguments.head == "tanh"
            else nn.Identity()
        )

    def forward(self, history: History) -> Interests:
        length = history.mask.shape[1]
        bias = None if self.recency is None else self.recency[-length:]
        attention = self_attention(self.project, self.score, history.vectors, history.mask, bias)
        # W2 after the sum over items, not before: the same by linearity, for K vectors, not L.
        raw = self.value(attention @ history.vectors)
        return Interests(self.head(raw), attention, raw)

    def serve(self, history: ServedHistory) -> ServedInterests:
        vectors, mask = history.vectors, history.mask
        bias = None if self.recency is None else self.recency[-mask.shape[1] :]
        attention = serve_self_attention(self.project, self.score, vectors, mask, bias)
        raw = interests = serve_linear(self.value, attention @ vectors)
        if isinstance(self.head, nn.Sequential):
            [linear, _] = self.head
            assert isinstance(linear, nn.Linear), "the head was built so; this is a bug"
            interests = np.tanh(serve_linear(linear, raw))
        return ServedInterests(interests, attention, raw)


@register("comirec-sa")
class ComirecSaEncoder(Encoder):
    """Cen et al., ComiRec, KDD 2020: A = softmax(V2 tanh(V1 (X + P))), Z = A X.

    Positions P, counted from the newest item, enter the attention only; the values are the plain
    item vectors.
    """

    class Arguments(EncoderArguments):
        interests: InterestCount
        hidden: Hidden
        history: HistoryLength
        biases: bool = Field(
            True, description="comirec-sa: biases in the attention; REMI trains without them"
        )

    def __init__(self, arguments: Arguments) -> None:
        super().__init__()
        dim, interests, hidden = arguments.dim, arguments.interests, arguments.hidden
        self.dim, self.interests = dim, interests
        self.position = nn.Parameter(torch.randn(arguments.history, dim).mul_(0.1))
        self.project = nn.Linear(dim, hidden, bias=arguments.biases)
        self.score = nn.Linear(hidden, interests, bias=arguments.biases)

    def forward(self, history: History) -> Interests:
        keys = history.vectors + self.position[-history.mask.shape[1] :]
        attention = self_attention(self.project, self.score, keys, history.mask)
        vectors = attention @ history.vectors
        return Interests(vectors, attention, vectors)

    def serve(self, history: ServedHistory) -> ServedInterests:
        vectors, mask = history.vectors, history.mask
        keys = vectors + self.position.detach().numpy()[-mask.shape[1] :]
        attention = serve_self_attention(self.project, self.score, keys, mask)
        interests = attention @ vectors
        return ServedInterests(interests, attention, interests)
