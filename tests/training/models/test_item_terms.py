"""The coordinates after an item's content, and the partition of the items."""

import torch
import torch.nn.functional as F

from training.models.clusters import partition
from training.models.item_terms import ItemTerms


def clusters(per_part: int, seed: int = 0) -> torch.Tensor:
    """Three groups of vectors around three axes."""
    torch.manual_seed(seed)
    return torch.eye(3).repeat_interleave(per_part, dim=0) * 5 + 0.3 * torch.randn(3 * per_part, 3)


def test_biases_begin_at_the_log_of_the_counts():
    terms = ItemTerms(torch.tensor([0, 100, 10, 0]), True, "max", 1)
    rows = torch.tensor([0, 1, 2, 3])
    appended = terms.append(torch.zeros(4, 2), rows)
    torch.testing.assert_close(appended[:, 2], torch.tensor([0, 100, 10, 1]).clamp_min(1).log())


def test_padding_is_zero_in_every_coordinate():
    for merge in ("max", "gated", "partitioned"):
        terms = ItemTerms(torch.tensor([0, 9, 4]), True, merge, 2)
        assert not terms.append(torch.zeros(3, 2), torch.tensor([0, 1, 2]))[0].any()


def test_k_means_finds_the_groups_and_parts_keep_their_labels():
    vectors = clusters(20)
    parts = partition(vectors, torch.arange(60) % 3, 3)
    assert sorted(parts.view(3, 20)[:, 0].tolist()) == [0, 1, 2]
    assert (parts.view(3, 20) == parts.view(3, 20)[:, :1]).all()
    for seed in range(5):
        torch.manual_seed(seed)
        assert torch.equal(partition(vectors + 0.1 * torch.randn(60, 3), parts, 3), parts)


def test_a_better_start_replaces_the_parts_and_most_items_keep_their_label():
    """From parts that k-means cannot leave: two groups in one, and one group in two."""
    angles = torch.tensor([0.0, 0.1, 2.0, 2.1]).repeat_interleave(30)
    vectors = torch.stack((angles.cos(), angles.sin(), torch.zeros(120)), dim=1)
    vectors[90:] = torch.tensor([0.0, 0.0, 1.0])
    stuck = torch.tensor([0, 1, 2, 2]).repeat_interleave(30)
    stuck_cosine = own_cosine(vectors, stuck)
    for seed in range(10):
        torch.manual_seed(seed)
        parts = partition(vectors, stuck, 3)
        if not torch.equal(parts, stuck):
            break
    assert own_cosine(vectors, parts) > stuck_cosine
    assert (parts == stuck).float().mean() >= 0.5


def own_cosine(vectors: torch.Tensor, parts: torch.Tensor) -> float:
    unit = F.normalize(vectors, dim=1)
    centers = F.normalize(torch.stack([unit[parts == k].sum(dim=0) for k in range(3)]), dim=1)
    return float((unit * centers[parts]).sum(dim=1).mean())


def test_terms_are_taken_over_and_a_new_item_joins_the_nearest_part():
    content = torch.cat((torch.zeros(1, 3), clusters(4)))
    old, fresh = (ItemTerms(torch.full((13,), count), True, "partitioned", 3) for count in (7, 2))
    old.refresh_parts(content)
    known = torch.tensor([1, 2, 3, 5, 6, 9, 10, 11])
    with torch.no_grad():
        fresh.take(known, old.append(content, torch.arange(13))[known, 3:], content)
    assert torch.equal(fresh.parts[1:], old.parts[1:])
    assert fresh.bias is not None
    torch.testing.assert_close(fresh.bias[known], torch.full((8,), 7.0).log())
    torch.testing.assert_close(fresh.bias[4], torch.tensor(2.0).log())
