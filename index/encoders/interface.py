"""What every encoder takes and returns.

Notation for shapes, here and in the encoders: B batch, L history length, K interests, D dimension.
"""

from collections.abc import Iterable
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from index.encoders.arguments import EncoderArguments


class History(NamedTuple):
    """A batch of padded histories, newest item in the last column.

    rows (B, L) int64, 0 = padding, or an item added after the training; vectors (B, L, D) their
    item vectors, zero at padding; mask (B, L) bool, true at items. Every history has at least one.
    gaps (B, L) int64: codes of the time from each item to the next, and from the last to the
    request, see index.encoders.time_gaps; None if no time is known.
    """

    rows: Tensor
    vectors: Tensor
    mask: Tensor
    gaps: Tensor | None = None

    def newest(self, first: int) -> "History":
        """The histories without the columns before `first`."""
        gaps = None if self.gaps is None else self.gaps[:, first:]
        return History(self.rows[:, first:], self.vectors[:, first:], self.mask[:, first:], gaps)


class Interests(NamedTuple):
    """The output of an encoder for a batch of histories.

    vectors (B, K, D): the queries of the search, and the input of the main loss.
    attention (B, K, L): the share of each history item in each interest; sums to 1, 0 at padding.
    raw (B, K, D): the interests before an output head, equal to `vectors` without a head.
    prediction (B, K): logits of which interest comes next; None from encoders without a predictor.
    """

    vectors: Tensor
    attention: Tensor
    raw: Tensor
    prediction: Tensor | None = None


def prefixes(vectors: Tensor, prediction: Tensor | None = None) -> Interests:
    """The interests (P, K, D) of prefixes, as `Encoder.prefix_interests` returns them."""
    return Interests(vectors, vectors.new_empty(*vectors.shape[:2], 0), vectors, prediction)


def _prefix_histories(history: History, ends: Tensor) -> History:
    """The histories (P, L) up to and with each of the items, which are in the last column."""
    users, places = ends.nonzero(as_tuple=True)
    length = ends.shape[1]
    columns = torch.arange(1 - length, 1, device=ends.device) + places[:, None]
    is_inside = columns >= 0
    cells = users[:, None], columns.clamp(min=0)
    return History(
        history.rows[cells] * is_inside,
        history.vectors[cells] * is_inside[:, :, None],
        history.mask[cells] & is_inside,
        None if history.gaps is None else history.gaps[cells] * is_inside,
    )


class ServedHistory(NamedTuple):
    """A History in arrays, as a server has it."""

    rows: NDArray[np.int64]
    vectors: NDArray[np.float32]
    mask: NDArray[np.bool_]
    gaps: NDArray[np.int64] | None = None


class ServedInterests(NamedTuple):
    """The first three parts of Interests in arrays."""

    vectors: NDArray[np.float32]
    attention: NDArray[np.float32]
    raw: NDArray[np.float32]


class Encoder(nn.Module):
    """Base class of the encoders: a type checker learns from it what a call returns.

    An encoder is built from one value of its `Arguments`. It holds no item table: it is given the
    vectors, which the server keeps memory-mapped and the trainer may update sparsely.
    """

    class Arguments(EncoderArguments):
        pass

    # Whether one pass over a history gives the interests after each of its items.
    causal: ClassVar[bool] = False
    # Whether its weights are computed, not learned.
    closed_form: ClassVar[bool] = False
    reads_gaps = False  # whether it reads the gaps of a history
    interests: int
    dim: int

    @property
    def content(self) -> int:
        """Number of coordinates that are an item's own vector; terms of the score follow them."""
        return self.dim

    def forward(self, history: History) -> Interests:
        raise NotImplementedError  # each encoder defines it

    def prefix_interests(self, history: History, ends: Tensor) -> Interests:
        """The interests after each of P items: of P histories, but in one pass if `causal`.

        ends (B, L) bool: true at these items, P in all. A prefix is a history up to and with such
        an item; prefixes are in the order of `ends.nonzero()`. vectors and raw are (P, K, D),
        prediction (P, K) or None; attention (P, K, 0) has no columns.
        """
        interests = self(_prefix_histories(history, ends))
        return interests._replace(attention=interests.attention[:, :, :0])

    def serve(self, history: ServedHistory) -> ServedInterests:
        """What forward gives, up to rounding (1e-5), without gradients.

        An encoder may compute it without torch, whose calls take longer than the work for the
        history of one request. Unless `uses_gpu`, it stays on the CPU.
        """
        weight = next(self.parameters(), None)
        with torch.inference_mode():
            given = [part for part in history if part is not None]  # the last may be missing
            parts: Iterable[Tensor] = map(torch.from_numpy, given)
            if weight is not None and weight.is_cuda:
                # From pinned memory a copy goes on beside the next.
                parts = (part.pin_memory().to(weight.device, non_blocking=True) for part in parts)
            interests = self(History(*parts))
        return ServedInterests(*(part.cpu().numpy() for part in interests[:3]))

    @property
    def uses_gpu(self) -> bool:
        """Whether `serve` computes on a GPU if the weights are there."""
        return type(self).serve is Encoder.serve

    def __call__(self, history: History) -> Interests:
        result: Interests = super().__call__(history)
        return result
