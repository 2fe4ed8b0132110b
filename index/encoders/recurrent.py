"""What encoders with a GRU share."""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence


def last_state(recurrent: nn.GRU, vectors: Tensor, mask: Tensor) -> Tensor:
    """The state (B, H) of a GRU after the newest item; padding is skipped, at no cost.

    vectors (B, L, D); mask (B, L).
    """
    count = mask.sum(dim=1)
    # Histories are padded on the left; a packed sequence is cut from the left.
    aligned = _rolled(vectors, count)
    packed = pack_padded_sequence(aligned, count.cpu(), batch_first=True, enforce_sorted=False)
    state: Tensor = recurrent(packed)[1]
    return state[-1]


def all_states(recurrent: nn.GRU, vectors: Tensor, mask: Tensor) -> Tensor:
    """The states (B, L, H) of a GRU after each item; those of padding mean nothing.

    vectors (B, L, D); mask (B, L).
    """
    count = mask.sum(dim=1)
    states: Tensor = recurrent(_rolled(vectors, count))[0]  # what follows the newest has no effect
    return _rolled(states, -count)


def _rolled(vectors: Tensor, shifts: Tensor) -> Tensor:
    """vectors (B, L, D), each history moved to later positions by its shift (B,), as on a ring."""
    length = vectors.shape[1]
    positions = (torch.arange(length, device=vectors.device) - shifts[:, None]) % length
    return vectors.gather(1, positions[:, :, None].expand_as(vectors))
