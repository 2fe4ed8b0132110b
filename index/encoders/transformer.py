"""A causal transformer of gated layers, from whose states one or several interests are read."""

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from index.encoders.arguments import InterestCount, TransformerArguments
from index.encoders.interface import Encoder, History, Interests, prefixes
from index.encoders.registry import register
from index.encoders.transformer_blocks import GatedBlock, causal_mask

_FACET_STATES = 3


@register("transformer")
class TransformerEncoder(Encoder):
    """The state h_t after each item, by causal attention and gated layers (eSASRec, RecSys 2025).

    A learned b_hd is added to the logit of head h for an item d positions earlier (Raffel et al.,
    T5, 2020, without buckets). So a state depends on the items up to its own alone, and a history
    is encoded alike whether it is a whole or a prefix.

    K = 1: z = norm(h_t). K > 1: facets (Chang et al., 2023),
    z_k = W_k norm([h_t; GELU(V [h_t; h_{t-1}; h_{t-2}])]).
    """

    class Arguments(TransformerArguments):
        interests: InterestCount
        gated: bool = Field(True, description="transformer: gate both parts of a block, as LiGR")
        expansion: int = Field(
            4, ge=1, description="transformer: width of a block's perceptron, in multiples of D"
        )

    causal = True

    def __init__(self, arguments: Arguments) -> None:
        super().__init__()
        dim = arguments.dim
        self.dim, self.interests = dim, arguments.interests
        self.distance_bias = nn.Parameter(torch.zeros(arguments.heads, arguments.history))
        self.blocks = nn.ModuleList(
            GatedBlock(
                dim, arguments.heads, arguments.expansion, arguments.dropout, arguments.gated
            )
            for _ in range(arguments.layers)
        )
        self.norm = nn.LayerNorm(dim)
        if self.interests > 1:
            self.recent = nn.Linear(_FACET_STATES * dim, dim)  # V
            self.facets = nn.Linear(2 * dim, self.interests * dim, bias=False)  # W_k

    def forward(self, history: History) -> Interests:
        # Columns that are padding in the whole batch are left out: most histories are short.
        first = int(history.mask.any(dim=0).long().argmax())
        seen = History(*(part[:, first:] for part in history))
        tail = _FACET_STATES if self.interests > 1 else 1
        vectors = self._read(self._states(seen, tail), seen.mask[:, -tail:])[:, -1]
        attention = torch.zeros(*vectors.shape[:2], history.mask.shape[1], device=vectors.device)
        attention[:, :, -1] = 1
        return Interests(vectors, attention, vectors)

    def prefix_interests(self, history: History, ends: Tensor) -> Interests:
        return prefixes(self._read(self._states(history, None), history.mask, ends))

    def _states(self, history: History, tail: int | None) -> Tensor:
        """(B, T, D): of the newest T = `tail` items, None for all."""
        bias = self._attention_bias(history.mask)
        states = history.vectors
        for block in self.blocks[:-1]:
            states = block(states, bias)
        result: Tensor = self.blocks[-1](states, bias, tail)
        return result

    def _attention_bias(self, mask: Tensor) -> Tensor:
        """(B, heads, L, L): b_hd, and -inf where a position may not attend."""
        steps = torch.arange(mask.shape[1], device=mask.device)
        distances = (steps[:, None] - steps).clamp(0, self.distance_bias.shape[1] - 1)
        return self.distance_bias[:, distances].masked_fill(~causal_mask(mask)[:, None], -torch.inf)

    def _read(self, states: Tensor, mask: Tensor, ends: Tensor | None = None) -> Tensor:
        """The interests (..., K, D) of states (B, L, D), or of those at `ends` alone."""
        if self.interests == 1:
            single: Tensor = self.norm(states if ends is None else states[ends])[..., None, :]
            return single
        normed = self.norm(states) * mask[:, :, None]
        window = torch.cat(
            [F.pad(normed, (0, 0, n, 0))[:, : normed.shape[1]] for n in range(_FACET_STATES)], dim=2
        )
        if ends is not None:
            normed, window = normed[ends], window[ends]
        joined = torch.cat((normed, F.gelu(self.recent(window))), dim=-1)
        facets: Tensor = self.facets(joined).unflatten(-1, (self.interests, -1))
        return facets
