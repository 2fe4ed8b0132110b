"""Interests from the states of a causal transformer. Shapes: T newest states, S read."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from index.encoders.served_layers import (
    gelu,
    serve_layer_norm,
    serve_linear,
    serve_swiglu,
    softmax,
)
from index.encoders.transformer_blocks import swiglu

_FACET_STATES = 3


class FacetReadout(nn.Module):
    """z_k = W_k [h_t; GELU(V [h_t; h_{t-1}; h_{t-2}])]: facets of the newest states.

    W_k begins as the identity on h_t, plus half of torch's own draw. Chang and McCallum,
    multi-facet softmax, ACL 2022, Eq. 4; Chang et al., arXiv 2310.14079.
    """

    states_read: int | None = _FACET_STATES

    def __init__(self, dim: int, interests: int) -> None:
        super().__init__()
        self._interests = interests
        self.norm = nn.LayerNorm(dim)
        self.recent = nn.Linear(_FACET_STATES * dim, dim)  # V
        self.facets = nn.Linear(2 * dim, interests * dim, bias=False)  # W_k
        # Interests begin near the state: K random directions take many epochs to mean anything.
        with torch.no_grad():
            weights = self.facets.weight.mul_(0.5).view(interests, dim, 2 * dim)
            weights[:, :, :dim].diagonal(dim1=1, dim2=2).add_(1.0)

    def forward(self, states: Tensor, mask: Tensor, ends: Tensor) -> tuple[Tensor, Tensor | None]:
        """The interests (S, K, D) after the positions `ends` (B, T), of states (B, T, D); None.

        mask (B, T).
        """
        normed = self.norm(states) * mask[:, :, None]
        length = states.shape[1]
        earlier = [F.pad(normed, (0, 0, n, 0))[:, :length][ends] for n in range(_FACET_STATES)]
        joined = torch.cat((earlier[0], F.gelu(self.recent(torch.cat(earlier, dim=1)))), dim=1)
        vectors: Tensor = self.facets(joined).unflatten(1, (self._interests, -1))
        return vectors, None

    def serve(self, states: NDArray[np.float32]) -> tuple[NDArray[np.float32], None]:
        """The interests (K, D) after the newest of states (T, D), in numpy; None."""
        normed = serve_layer_norm(self.norm, states[: -_FACET_STATES - 1 : -1])
        joined = np.zeros((1, _FACET_STATES * normed.shape[1]), np.float32)  # newest first
        joined[:, : normed.size] = normed.reshape(1, -1)
        recent = gelu(serve_linear(self.recent, joined))
        vectors = serve_linear(self.facets, np.concatenate((normed[:1], recent), axis=1))
        return vectors.reshape(self._interests, -1), None


class TokenReadout(nn.Module):
    """K learnt tokens q_k read the states, causally, and not each other: the last layer of
    KuaiFormer's query tokens (Liu et al., 2024).

    u_k = q_k + Attention(q_k; h_1..h_t), z_k = norm(u_k + SwiGLU(norm u_k)). A learned b_d is added
    to the logit of an item d positions before the newest.
    """

    states_read: int | None = None

    def __init__(
        self, dim: int, interests: int, heads: int, history: int, expansion: int, dropout: float
    ) -> None:
        super().__init__()
        self._heads = heads
        self.tokens = nn.Parameter(torch.randn(interests, dim).mul_(dim**-0.5))
        self.distance_bias = nn.Parameter(torch.zeros(interests, history))
        self.before_attention, self.before_layers = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim, bias=False)
        self.key_value = nn.Linear(dim, 2 * dim, bias=False)
        self.up = nn.Linear(dim, 2 * expansion * dim, bias=False)
        self.down = nn.Linear(expansion * dim, dim, bias=False)
        self.drop = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(dim)

    def forward(self, states: Tensor, mask: Tensor, ends: Tensor) -> tuple[Tensor, Tensor | None]:
        """The interests (S, K, D) after the positions `ends` (B, L), of states (B, L, D); and the
        attention (S, K, L), the mean of the heads."""
        pair = self.key_value(self.before_attention(states)).unflatten(2, (2, self._heads, -1))
        keys, values = pair.permute(2, 0, 3, 1, 4)  # each (B, heads, L, D / heads)
        queries = self.query(self.tokens).unflatten(1, (self._heads, -1)).transpose(0, 1)
        logits = queries @ keys.transpose(2, 3) * keys.shape[3] ** -0.5  # (B, heads, K, L)
        which, end = ends.nonzero(as_tuple=True)
        steps = torch.arange(mask.shape[1], device=mask.device)
        distances = end[:, None] - steps  # (S, L)
        bias = self.distance_bias[:, distances.clamp(0, self.distance_bias.shape[1] - 1)]
        hidden = (distances < 0) | ~mask[which]
        seen = logits[which] + bias.transpose(0, 1)[:, None]  # (S, heads, K, L)
        attention = seen.masked_fill(hidden[:, None, None], -torch.inf).softmax(dim=3)
        read = (attention @ values[which]).transpose(1, 2).flatten(2)  # (S, K, D)
        mixed = self.tokens + self.drop(read)
        update = swiglu(self.up, self.down, self.before_layers(mixed))
        vectors: Tensor = self.norm(mixed + self.drop(update))
        return vectors, attention.mean(dim=1)

    def serve(self, states: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The interests (K, D) after the newest of states (L, D), in numpy; and the attention
        (K, L), the mean of the heads."""
        length, tokens = len(states), self.tokens.detach().numpy()
        pair = serve_linear(self.key_value, serve_layer_norm(self.before_attention, states))
        pair = pair.reshape(length, 2, self._heads, -1)
        keys, values = pair.transpose(1, 2, 3, 0)  # each (heads, D / heads, L)
        queries = serve_linear(self.query, tokens).reshape(len(tokens), self._heads, -1)
        distances = np.arange(length - 1, -1, -1).clip(max=self.distance_bias.shape[1] - 1)
        logits = queries.transpose(1, 0, 2) @ keys * np.float32(keys.shape[1] ** -0.5)
        attention = softmax(logits + self.distance_bias.detach().numpy()[:, distances], axis=2)
        read = (attention @ values.transpose(0, 2, 1)).transpose(1, 0, 2)  # (K, heads, D / heads)
        mixed = tokens + read.reshape(tokens.shape)
        update = serve_swiglu(self.up, self.down, serve_layer_norm(self.before_layers, mixed))
        return serve_layer_norm(self.norm, mixed + update), attention.mean(axis=0)
