"""Interests by dynamic routing: the items of a history vote for capsules, and those they agree
with hear them more."""

import torch
from torch import Tensor, nn

from index.encoders.interface import Encoder, History, Interests

_ROUTING_SEED = 2019


def squash(vectors: Tensor) -> Tensor:
    """Shorten to below 1 and keep the direction: |s|^2 / (1 + |s|^2) * s / sqrt(|s|^2 + 1e-9)."""
    square = vectors.square().sum(dim=-1, keepdim=True)
    return square / (1 + square) * vectors / torch.sqrt(square + 1e-9)


def route(votes: Tensor, mask: Tensor, logits: Tensor, iterations: int) -> Interests:
    """votes (B, G, L, D), first logits broadcastable to (B, K, L) -> capsules and their couplings.

    G divides K: K / G interests hear the same votes. The coupling of an item is a softmax over the
    *interests*; several ports take it over the items. Votes get gradient in the last iteration
    alone. `attention` is each capsule's couplings, rescaled to sum to 1 over the items.
    """
    batch, groups, length, dim = votes.shape
    present = mask[:, None, :]
    logits = logits.expand(batch, -1, length)

    def hear(coupling: Tensor, votes: Tensor) -> Tensor:
        return squash((coupling.view(batch, groups, -1, length) @ votes).flatten(1, 2))

    still = votes.detach()
    for _ in range(iterations - 1):
        capsules = hear(logits.softmax(dim=1) * present, still)
        agreement = capsules.view(batch, groups, -1, dim) @ still.transpose(2, 3)
        logits = logits + agreement.flatten(1, 2)
    coupling = logits.softmax(dim=1) * present
    capsules = hear(coupling, votes)
    attention = coupling / coupling.sum(dim=2, keepdim=True).clamp_min(1e-12)
    return Interests(capsules, attention, capsules)


class ComirecDrEncoder(Encoder):
    """Cen et al., ComiRec, KDD 2020, the routing variant: u_jk = W_jk x_j, logits from 0.

    There is one W (D, D) a place of the history, counted from the newest, and interest.
    """

    def __init__(
        self, dim: int = 64, interests: int = 8, history: int = 20, iterations: int = 3
    ) -> None:
        super().__init__()
        self.dim, self.interests, self._iterations = dim, interests, iterations
        self.transform = nn.Parameter(torch.randn(history, interests, dim, dim) * dim**-0.5)

    def forward(self, history: History) -> Interests:
        transform = self.transform[-history.mask.shape[1] :]
        votes = torch.einsum("bld,lkde->bkle", history.vectors, transform)
        start = votes.new_zeros(1, self.interests, 1)
        return route(votes, history.mask, start, self._iterations)


class MindEncoder(Encoder):
    """Li et al., MIND, CIKM 2019: u_j = S x_j with one S for all, logits from N(0, 1).

    The logits, one a place of the history and interest, are drawn once and shipped: drawn anew at
    each call, as much public code does, they give the same user other candidates every time.

    dynamic: a history of n items has max(1, min(K, log2 n)) interests. The rest repeat the first,
    so that they are neither searched as zero vectors nor find anything of their own.
    """

    start: Tensor

    def __init__(
        self,
        dim: int = 64,
        interests: int = 8,
        history: int = 20,
        iterations: int = 3,
        dynamic: bool = False,
    ) -> None:
        super().__init__()
        self.dim, self.interests = dim, interests
        self._iterations, self._dynamic = iterations, dynamic
        self.transform = nn.Linear(dim, dim, bias=False)
        nn.init.normal_(self.transform.weight, std=dim**-0.5)
        generator = torch.Generator().manual_seed(_ROUTING_SEED)
        self.register_buffer("start", torch.randn(history, interests, generator=generator))

    def forward(self, history: History) -> Interests:
        votes = self.transform(history.vectors)[:, None]
        start = self.start[-history.mask.shape[1] :].T
        found = route(votes, history.mask, start, self._iterations)
        if not self._dynamic:
            return found
        several = history.mask.sum(dim=1).log2().floor().clamp(1, self.interests)
        spare = torch.arange(self.interests, device=several.device) >= several[:, None]
        vectors, attention = (
            torch.where(spare[:, :, None], part[:, :1], part) for part in found[:2]
        )
        return Interests(vectors, attention, vectors)
