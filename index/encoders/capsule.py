"""Interests by dynamic routing: the items of a history vote for capsules, and the items that agree
with a capsule gain weight in it."""

import torch
from pydantic import Field
from torch import Tensor, nn

from index.encoders.arguments import EncoderArguments, HistoryLength, InterestCount
from index.encoders.interface import Encoder, History, Interests
from index.encoders.registry import register

_ROUTING_SEED = 2019


def squash(vectors: Tensor) -> Tensor:
    """Shorten to below 1 and keep the direction: |s|^2 / (1 + |s|^2) * s / sqrt(|s|^2 + 1e-9)."""
    square = vectors.square().sum(dim=-1, keepdim=True)
    return square / (1 + square) * vectors / torch.sqrt(square + 1e-9)


def route(votes: Tensor, mask: Tensor, logits: Tensor, iterations: int) -> Interests:
    """votes (B, G, L, D), first logits broadcastable to (B, K, L) -> capsules and their couplings.

    G divides K: K / G interests get the same votes. The coupling of an item is a softmax over the
    *interests*; several ports take it over the items. Votes get gradient in the last iteration
    only. `attention` is each capsule's couplings, rescaled to sum to 1 over the items.
    """
    batch, groups, length, dim = votes.shape
    present = mask[:, None, :]
    logits = logits.expand(batch, -1, length)

    def capsules_of(coupling: Tensor, votes: Tensor) -> Tensor:
        return squash((coupling.view(batch, groups, -1, length) @ votes).flatten(1, 2))

    detached = votes.detach()
    for _ in range(iterations - 1):
        capsules = capsules_of(logits.softmax(dim=1) * present, detached)
        agreement = capsules.view(batch, groups, -1, dim) @ detached.transpose(2, 3)
        logits = logits + agreement.flatten(1, 2)
    coupling = logits.softmax(dim=1) * present
    capsules = capsules_of(coupling, votes)
    attention = coupling / coupling.sum(dim=2, keepdim=True).clamp_min(1e-12)
    return Interests(capsules, attention, capsules)


class RoutingArguments(EncoderArguments):
    interests: InterestCount
    history: HistoryLength
    iterations: int = Field(3, ge=1, description="comirec-dr, mind: iterations of the routing")


@register("comirec-dr")
class ComirecDrEncoder(Encoder):
    """Cen et al., ComiRec, KDD 2020, the routing variant: u_jk = W_jk x_j, logits from 0.

    There is one W (D, D) per interest and position of the history, counted from the newest.
    """

    class Arguments(RoutingArguments):
        pass

    def __init__(self, arguments: Arguments) -> None:
        super().__init__()
        dim, interests = arguments.dim, arguments.interests
        self.dim, self.interests, self._iterations = dim, interests, arguments.iterations
        self.transform = nn.Parameter(
            torch.randn(arguments.history, interests, dim, dim).mul_(dim**-0.5)
        )

    def forward(self, history: History) -> Interests:
        transform = self.transform[-history.mask.shape[1] :]
        votes = torch.einsum("bld,lkde->bkle", history.vectors, transform)
        start = votes.new_zeros(1, self.interests, 1)
        return route(votes, history.mask, start, self._iterations)


@register("mind")
class MindEncoder(Encoder):
    """Li et al., MIND, CIKM 2019: u_j = S x_j with one S for all, logits from N(0, 1).

    The logits, one per interest and position of the history, are drawn once and shipped. Much
    public code draws them at each call, and then the same user gets other candidates every time.

    dynamic: a history of n items has max(1, min(K, log2 n)) interests. The rest repeat the first:
    so they are no zero vectors in the search, and find nothing of their own.
    """

    class Arguments(RoutingArguments):
        dynamic: bool = Field(
            False, description="mind: log2(length of the history) interests, at most K"
        )

    start: Tensor

    def __init__(self, arguments: Arguments) -> None:
        super().__init__()
        dim, interests = arguments.dim, arguments.interests
        self.dim, self.interests = dim, interests
        self._iterations, self._dynamic = arguments.iterations, arguments.dynamic
        self.transform = nn.Linear(dim, dim, bias=False)
        nn.init.normal_(self.transform.weight, std=dim**-0.5)
        generator = torch.Generator().manual_seed(_ROUTING_SEED)
        start = torch.randn(arguments.history, interests, generator=generator)
        self.register_buffer("start", start)

    def forward(self, history: History) -> Interests:
        votes = self.transform(history.vectors)[:, None]
        start = self.start[-history.mask.shape[1] :].T
        routed = route(votes, history.mask, start, self._iterations)
        if not self._dynamic:
            return routed
        count = history.mask.sum(dim=1).log2().floor().clamp(1, self.interests)
        spare = torch.arange(self.interests, device=count.device) >= count[:, None]
        vectors, attention = (
            torch.where(spare[:, :, None], part[:, :1], part) for part in routed[:2]
        )
        return Interests(vectors, attention, vectors)
