"""log sum_i exp(logit_i) over negatives without the target, in few passes over the logits."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx


def log_normalizer(logits: Tensor, targets: Tensor, negatives: Tensor) -> Tensor:
    """(B,): log of the sum over the columns of logits (B, S) whose row is not the target.

    targets (B,), negatives (S,): rows; a negative may be drawn twice. -inf if no column is left.
    masked_fill and logsumexp give the same in twice the time: most of their passes copy.
    """
    hits = _accidental_hits(targets, negatives)
    result: Tensor = _LogNormalizer.apply(logits, *hits)  # type: ignore[no-untyped-call]
    return result


class _LogNormalizer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, logits: Tensor, examples: Tensor, columns: Tensor) -> Tensor:
        maximum = logits.amax(dim=1, keepdim=True)
        shares = (logits - maximum).exp_()
        shares[examples, columns] = 0
        total = shares.sum(dim=1, keepdim=True)
        ctx.save_for_backward(shares, total)
        return (total.log() + maximum).squeeze(1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        shares, total = ctx.saved_tensors
        tiny = torch.finfo(total.dtype).tiny
        return shares * (gradients[0][:, None] / total.clamp_min(tiny)), None, None


def _accidental_hits(targets: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
    """Example and column of each negative that is the example's target."""
    ordered, columns = negatives.sort()
    first = torch.searchsorted(ordered, targets)
    counts = torch.searchsorted(ordered, targets, right=True) - first
    examples = torch.arange(len(targets), device=targets.device).repeat_interleave(counts)
    within = torch.arange(len(examples), device=targets.device)
    within = within - (counts.cumsum(0) - counts)[examples]
    return examples, columns[first[examples] + within]
