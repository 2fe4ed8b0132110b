"""The fused sum over negatives against autograd's own operations, in float64."""

import torch

from training.models.objectives.log_normalizer import log_normalizer

TARGETS = torch.tensor([1, 4, 4, 9, 2])
NEGATIVES = torch.tensor([4, 2, 2, 7, 1, 4, 8])


def plain(logits: torch.Tensor) -> torch.Tensor:
    return logits.masked_fill(TARGETS[:, None] == NEGATIVES, -torch.inf).logsumexp(dim=1)


def test_value_and_gradient_are_those_of_masked_fill_and_logsumexp() -> None:
    torch.manual_seed(0)
    logits = (30 * torch.randn(5, 7, dtype=torch.float64)).requires_grad_()
    weights = torch.randn(5, dtype=torch.float64)
    given, expected = log_normalizer(logits, TARGETS, NEGATIVES), plain(logits)
    torch.testing.assert_close(given, expected)
    gradients = [torch.autograd.grad((v * weights).sum(), logits)[0] for v in (given, expected)]
    torch.testing.assert_close(*gradients)


def test_an_example_without_other_negatives_has_none_and_no_gradient() -> None:
    logits = torch.tensor([[1.0, 2.0]], requires_grad=True)
    hits = torch.tensor([4]), torch.tensor([4, 4])
    total = log_normalizer(logits, *hits)
    assert total.item() == -torch.inf
    torch.logaddexp(torch.tensor(0.5), total).sum().backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == [[0, 0]]
