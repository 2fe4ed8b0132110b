"""A causal transformer of gated layers, from whose states one or several interests are read."""

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from index.encoders.arguments import InterestCount, TransformerArguments
from index.encoders.interest_readouts import FacetReadout, TokenReadout
from index.encoders.interface import (
    Encoder,
    History,
    Interests,
    ServedHistory,
    ServedInterests,
    prefixes,
)
from index.encoders.registry import register
from index.encoders.served_layers import serve_layer_norm
from index.encoders.time_gaps import GapEmbedding
from index.encoders.transformer_blocks import GatedBlock, causal_mask


@register("transformer")
class TransformerEncoder(Encoder):
    """The state h_t after each item, by causal attention and gated layers (eSASRec, RecSys 2025).

    A learned b_hd is added to the logit of head h for an item d positions earlier (Raffel et al.,
    T5, 2020, without buckets). So a state depends on the items up to its own alone, and a history
    is encoded alike whether it is a whole or a prefix.

    time_gaps: to each item's vector that of the time until the next event is added, of the newest
    that of the time until the request.
    K = 1: z = norm(h_t), or by single_readout a facet. K > 1: see the readouts.
    """

    class Arguments(TransformerArguments):
        interests: InterestCount
        gated: bool = Field(True, description="transformer: gate both parts of a block, as LiGR")
        expansion: int = Field(
            4, ge=1, description="transformer: width of a block's perceptron, in multiples of D"
        )
        readout: Literal["facets", "tokens"] = Field(
            "facets",
            description="transformer: what K > 1 interests are: facets of the newest states, or "
            "learnt tokens that read all states",
        )
        single_readout: Literal["state", "facet"] = Field(
            "state",
            description="transformer: what a single interest is: the newest state, or a facet of "
            "the three newest states",
        )
        time_gaps: bool = Field(
            False,
            description="transformer: read the time from each event to the next",
        )

    causal = True

    def __init__(self, arguments: Arguments) -> None:
        super().__init__()
        dim = arguments.dim
        self.dim, self.interests = dim, arguments.interests
        self.reads_gaps = arguments.time_gaps
        self.gaps = GapEmbedding(dim) if arguments.time_gaps else None
        self.distance_bias = nn.Parameter(torch.zeros(arguments.heads, arguments.history))
        self.blocks = nn.ModuleList(
            GatedBlock(
                dim, arguments.heads, arguments.expansion, arguments.dropout, arguments.gated
            )
            for _ in range(arguments.layers)
        )
        self.readout = _build_readout(arguments)
        if self.readout is None:
            self.norm = nn.LayerNorm(dim)

    def forward(self, history: History) -> Interests:
        # Columns that are padding in the whole batch are left out: most histories are short.
        length = history.mask.shape[1]
        first = int(history.mask.any(dim=0).long().argmax())
        seen = history.newest(first)
        attention = None
        if self.readout is None:
            vectors = self.norm(self._states(seen, 1))
        else:
            states = self._states(seen, self.readout.states_read)
            mask = seen.mask[:, -states.shape[1] :]
            ends = torch.zeros_like(mask)
            ends[:, -1] = True
            vectors, attention = self.readout(states, mask, ends)
        if attention is None:
            attention = vectors.new_zeros(*vectors.shape[:2], length)
            attention[:, :, -1] = 1
        else:
            attention = F.pad(attention, (length - attention.shape[2], 0))
        return Interests(vectors, attention, vectors)

    def prefix_interests(self, history: History, ends: Tensor) -> Interests:
        return prefixes(self._read(self._states(history, None), history.mask, ends)[0])

    def _states(self, history: History, tail: int | None) -> Tensor:
        """(B, T, D): of the newest T = `tail` items, None for all."""
        bias = None
        if tail != 1 or len(self.blocks) > 1:
            bias = self._attention_bias(history.mask)
        states = history.vectors
        if self.gaps is not None:
            states = states + self.gaps(history.gaps, history.rows)
        for block in self.blocks[:-1]:
            states = block(states, bias)
        if tail == 1:
            bias = self._newest_bias(history.mask)
        result: Tensor = self.blocks[-1](states, bias, tail)
        return result

    def _newest_bias(self, mask: Tensor) -> Tensor:
        """(B, heads, 1, L): of the newest position alone, which may attend to all items."""
        distances = torch.arange(mask.shape[1] - 1, -1, -1, device=mask.device)
        bias = self.distance_bias[:, distances.clamp_max(self.distance_bias.shape[1] - 1)]
        return bias[:, None].masked_fill(~mask[:, None, None], -torch.inf)

    def _attention_bias(self, mask: Tensor) -> Tensor:
        """(B, heads, L, L): b_hd, and -inf where a position may not attend."""
        steps = torch.arange(mask.shape[1], device=mask.device)
        distances = (steps[:, None] - steps).clamp(0, self.distance_bias.shape[1] - 1)
        return self.distance_bias[:, distances].masked_fill(~causal_mask(mask)[:, None], -torch.inf)

    def _read(self, states: Tensor, mask: Tensor, ends: Tensor) -> tuple[Tensor, Tensor | None]:
        """The interests (S, K, D) after the S positions `ends` (B, T), and attention (S, K, T)."""
        if self.readout is None:
            return self.norm(states[ends])[:, None], None
        result: tuple[Tensor, Tensor | None] = self.readout(states, mask, ends)
        return result

    @property
    def uses_gpu(self) -> bool:
        return True

    def serve(self, history: ServedHistory) -> ServedInterests:
        """One history on a CPU without torch; several, which take less time together, with it."""
        if self.distance_bias.is_cuda or len(history.mask) > 1:
            return super().serve(history)
        first = int(history.mask.argmax())
        gaps = None if history.gaps is None else history.gaps[0, first:]
        vectors, read = self._serve_one(history.vectors[0, first:], gaps)
        attention = np.zeros((1, self.interests, history.mask.shape[1]), np.float32)
        if read is None:
            attention[:, :, -1] = 1
        else:
            attention[0, :, first:] = read
        return ServedInterests(vectors[None], attention, vectors[None])

    def _serve_one(
        self, states: NDArray[np.float32], gaps: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """The interests (K, D) of one history (L, D) and the attention (K, L), None if all is the
        newest item's."""
        length = len(states)
        tail = 1 if self.readout is None else self.readout.states_read or length
        if self.gaps is not None:
            states = states + self.gaps.serve(gaps)
        bias = self._served_bias(length, length if len(self.blocks) > 1 else tail)
        for number, block in enumerate(self.blocks, start=1):
            assert isinstance(block, GatedBlock), "the blocks were built so; this is a bug"
            states = block.serve(states, bias[:, -tail:] if number == len(self.blocks) else bias)
        if self.readout is None:
            return serve_layer_norm(self.norm, states), None
        return self.readout.serve(states)

    def _served_bias(self, length: int, tail: int) -> NDArray[np.float32]:
        """(heads, T, L): as _attention_bias, of the newest T = `tail` positions or all L."""
        steps = np.arange(length)
        distances = np.subtract.outer(steps[-tail:], steps)
        learned = self.distance_bias.detach().numpy()
        bias = learned[:, distances.clip(0, learned.shape[1] - 1)]
        bias[:, distances < 0] = -np.inf
        return bias


def _build_readout(arguments: TransformerEncoder.Arguments) -> FacetReadout | TokenReadout | None:
    """None where the one interest is the newest state."""
    if arguments.interests == 1 and arguments.single_readout == "state":
        return None
    if arguments.interests == 1 or arguments.readout == "facets":
        return FacetReadout(arguments.dim, arguments.interests)
    return TokenReadout(
        arguments.dim,
        arguments.interests,
        arguments.heads,
        arguments.history,
        arguments.expansion,
        arguments.dropout,
    )
