"""What every encoder takes and gives."""

from typing import NamedTuple

from torch import Tensor, nn


class History(NamedTuple):
    """A batch of padded histories, newest item in the last column.

    rows (B, L) int64, 0 = padding, or an item that came after the training; vectors (B, L, D) their
    item vectors, zero at padding; mask (B, L) bool, true at items. Every history has at least one.
    """

    rows: Tensor
    vectors: Tensor
    mask: Tensor


class Interests(NamedTuple):
    """What an encoder makes of a batch of histories.

    vectors (B, K, D): what is searched with and what the main loss sees.
    attention (B, K, L): the share of each history item in each interest; sums to 1, 0 at padding.
    raw (B, K, D): the interests before an output head, equal to `vectors` where there is none.
    prediction (B, K): logits of which interest comes next, from an encoder that tells.
    """

    vectors: Tensor
    attention: Tensor
    raw: Tensor
    prediction: Tensor | None = None


class Encoder(nn.Module):
    """Base of the encoders, so that a checker knows what calling one returns.

    An encoder holds no item table: it is handed the vectors, which the server keeps memory-mapped
    and the trainer may update sparsely.
    """

    interests: int
    dim: int

    def forward(self, history: History) -> Interests:
        raise NotImplementedError  # the families define it; this class is their type

    def __call__(self, history: History) -> Interests:
        result: Interests = super().__call__(history)
        return result
