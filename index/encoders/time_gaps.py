"""The time from each event of a history to the next, as an encoder reads it.

A time s of seconds has the code 1 + floor(log2(1 + s)): 1 is below a second, 17 about a day,
32 is 68 years and more. 0 is a time that is not known.
"""

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

UNKNOWN = 0
CODES = 33
_HIDDEN_SHARE = 0.1


def gap_codes(seconds: ArrayLike) -> NDArray[np.uint8]:
    """The code of each time; UNKNOWN of one that is not a number. A negative one counts as 0."""
    values = np.asarray(seconds, dtype=np.float64)
    known = ~np.isnan(values)
    bounded = np.where(known, values, 0.0).clip(0.0, 2.0 ** (CODES - 2))
    exponents = np.frexp(1.0 + bounded)[1]  # 1 + s = m * 2 ** e, with m from 1/2 to 1
    codes: NDArray[np.uint8] = np.where(known, exponents, UNKNOWN).astype(np.uint8)
    return codes


def codes_of_ages(ages: ArrayLike) -> NDArray[np.uint8]:
    """(n,): the codes of a history, from the seconds (n,) from each event to the request.

    The last code is of the time since the newest event. Where an age is not a number, neither the
    time to that event nor that from it is known.
    """
    values = np.asarray(ages, dtype=np.float64)
    return gap_codes(values - np.append(values[1:], 0.0))


class GapEmbedding(nn.Module):
    """A learnt vector for each code; in training, the codes of a tenth of the histories are hidden,
    so that the vector of UNKNOWN is learnt too. All begin at zero.

    Of a code that the training never had the next lower one that it had is read: in a log of days
    an hour ago is today.
    """

    nearest: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        # Not an Embedding: a warm start takes the rows of these for items.
        self.vectors = nn.Parameter(torch.zeros(CODES, dim))
        self.register_buffer("nearest", torch.arange(CODES))

    def restrict(self, codes: NDArray[np.uint8]) -> None:
        """Read these codes, of a training log, and no others."""
        known = np.zeros(CODES, dtype=np.int64)
        known[codes] = codes
        self.nearest.copy_(torch.from_numpy(np.maximum.accumulate(known)))

    def extend(self, nearest: Tensor) -> None:
        """Read the codes of an earlier training too, of which this is `nearest`."""
        self.nearest.copy_(torch.maximum(self.nearest, nearest.to(self.nearest.device)))

    def forward(self, codes: Tensor | None, rows: Tensor) -> Tensor:
        """(B, L, D) of codes (B, L), or of UNKNOWN for each of rows (B, L) without codes."""
        if codes is None:
            codes = torch.zeros_like(rows)
        elif self.training:
            codes = codes * (torch.rand(len(codes), 1, device=codes.device) >= _HIDDEN_SHARE)
        return self.vectors[self.nearest[codes]]

    def serve(self, codes: NDArray[np.int64] | None) -> NDArray[np.float32]:
        """(L, D) of codes (L,), or (1, D) of UNKNOWN without codes, in numpy."""
        known = [UNKNOWN] if codes is None else codes
        vectors: NDArray[np.float32] = self.vectors.detach().numpy()[self.nearest.numpy()[known]]
        return vectors


def gap_embeddings(encoder: nn.Module) -> dict[str, GapEmbedding]:
    """Those of an encoder, by name."""
    modules = encoder.named_modules()
    return {name: module for name, module in modules if isinstance(module, GapEmbedding)}
