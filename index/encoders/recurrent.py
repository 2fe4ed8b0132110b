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
    positions = torch.arange(mask.shape[1], device=mask.device) - count[:, None]
    aligned = vectors.gather(1, (positions % mask.shape[1])[:, :, None].expand_as(vectors))
    packed = pack_padded_sequence(aligned, count.cpu(), batch_first=True, enforce_sorted=False)
    state: Tensor = recurrent(packed)[1]
    return state[-1]
