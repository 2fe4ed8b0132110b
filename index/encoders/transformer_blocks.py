"""The layers of causal transformers, and what their attention may see."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from index.encoders.served_layers import (
    serve_layer_norm,
    serve_linear,
    serve_swiglu,
    sigmoid,
    softmax,
)


def causal_mask(mask: Tensor) -> Tensor:
    """(B, L, L) bool: which items (the last axis) each position may attend to; mask (B, L).

    Padding attends to itself: a softmax over nothing would be NaN.
    """
    length = mask.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
    diagonal = torch.eye(length, dtype=torch.bool, device=mask.device)
    return (causal & mask[:, None, :]) | diagonal


def swiglu(up: nn.Linear, down: nn.Linear, inputs: Tensor) -> Tensor:
    """W3 (SiLU(W1 x) * W2 x) for x (B, T, D): up has W1 and W2, down W3 (Shazeer, 2020, Eq. 6)."""
    gate, value = up(inputs).chunk(2, dim=2)
    outputs: Tensor = down(F.silu(gate) * value)
    return outputs


class PlainBlock(nn.Module):
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


class GatedBlock(nn.Module):
    """A LiGR layer: x + sigmoid(W x) * Attention(norm x), then the same with a SwiGLU perceptron.

    Borisyuk et al., LiGR, 2025, Eq. 2. The perceptron is `expansion` times as wide as x.
    gated=False leaves out both sigmoids.
    """

    def __init__(
        self, dim: int, heads: int, expansion: int, dropout: float, gated: bool = True
    ) -> None:
        super().__init__()
        self._heads = heads
        self.before_attention, self.before_layers = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim, bias=False)
        self.key_value = nn.Linear(dim, 2 * dim, bias=False)
        self.out = nn.Linear(dim, dim)
        self.up = nn.Linear(dim, 2 * expansion * dim, bias=False)
        self.down = nn.Linear(expansion * dim, dim, bias=False)
        self.attention_gate = nn.Linear(dim, dim) if gated else None
        self.layers_gate = nn.Linear(dim, dim) if gated else None
        self.drop = nn.Dropout(dropout)

    def forward(self, states: Tensor, bias: Tensor, tail: int | None = None) -> Tensor:
        """The states (B, T, D) of the newest T = `tail` positions, None for all of them.

        states (B, L, D); bias (B, heads, L, L), or of the T positions alone (B, heads, T, L), is
        added to the logits, -inf where a position may not attend.
        """
        normed = self.before_attention(states)
        first = 0 if tail is None else max(states.shape[1] - tail, 0)
        query = self.query(normed[:, first:]).unflatten(2, (self._heads, -1)).transpose(1, 2)
        pair = self.key_value(normed).unflatten(2, (2, self._heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(
            query, pair[0], pair[1], bias[:, :, -query.shape[2] :]
        )
        states = states[:, first:]
        states = states + self._gate(
            self.attention_gate, states, self.out(attended.transpose(1, 2).flatten(2))
        )
        update = swiglu(self.up, self.down, self.before_layers(states))
        return states + self._gate(self.layers_gate, states, update)

    def _gate(self, gate: nn.Linear | None, states: Tensor, update: Tensor) -> Tensor:
        dropped: Tensor = self.drop(update)
        return dropped if gate is None else torch.sigmoid(gate(states)) * dropped

    def serve(self, states: NDArray[np.float32], bias: NDArray[np.float32]) -> NDArray[np.float32]:
        """As forward, of one history in numpy: states (L, D), and the bias (heads, T, L) of the
        newest T positions, whose states (T, D) are given."""
        dim, tail = states.shape[1], bias.shape[1]
        normed = serve_layer_norm(self.before_attention, states)
        states = states[-tail:]
        query = serve_linear(self.query, normed[-tail:]).reshape(tail, self._heads, -1)
        pair = serve_linear(self.key_value, normed).reshape(len(normed), 2, self._heads, -1)
        keys, values = pair.transpose(1, 2, 3, 0)  # each (heads, D / heads, L)
        query *= np.float32(query.shape[2] ** -0.5)
        attention = softmax(query.transpose(1, 0, 2) @ keys + bias, axis=2)
        attended = (attention @ values.transpose(0, 2, 1)).transpose(1, 0, 2).reshape(tail, dim)
        update = serve_linear(self.out, attended)
        states = states + _serve_gate(self.attention_gate, states, update)
        normed = serve_layer_norm(self.before_layers, states)
        update = serve_swiglu(self.up, self.down, normed)
        return states + _serve_gate(self.layers_gate, states, update)


def _serve_gate(
    gate: nn.Linear | None, states: NDArray[np.float32], update: NDArray[np.float32]
) -> NDArray[np.float32]:
    return update if gate is None else sigmoid(serve_linear(gate, states)) * update
