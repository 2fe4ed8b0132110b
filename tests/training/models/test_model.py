"""What the losses see of a batch."""

import pytest
import torch

from training.config import FitConfig
from training.data.examples import Examples
from training.models.model import Model
from training.models.objectives import LossInputs


def inputs_of(model: Model, examples: Examples) -> LossInputs:
    """What the objective of a model is called with."""
    seen: list[LossInputs] = []
    model.objective.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model(examples)
    return seen[0]


def test_dropout_is_for_the_encoder_and_the_losses_see_clean_items():
    config = FitConfig(dim=8, hidden=8, interests=2, history=4, dropout=0.5, negatives=5)
    torch.manual_seed(0)
    model = Model(config, torch.ones(10, dtype=torch.int64)).train()
    examples = Examples(torch.tensor([[0, 1, 2, 3], [4, 5, 6, 7]]), torch.tensor([8, 9]))
    given = []
    model.encoder.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0].vectors))
    batch = inputs_of(model, examples)
    clean = model.table(batch.history.rows)
    torch.testing.assert_close(batch.history.vectors, clean)
    dropped = given[0] == 0
    assert dropped[batch.history.mask].any()
    torch.testing.assert_close(given[0][~dropped], 2 * clean[~dropped])


def test_reconstruction_of_clean_vectors_is_asked_for_whatever_is_dropped():
    """An interest that restores an item exactly has no loss, with dropout as without."""
    config = FitConfig(
        dim=8,
        hidden=8,
        interests=2,
        history=4,
        dropout=0.9,
        negatives=5,
        reconstruct=1.0,
        gamma=0.01,
    )
    torch.manual_seed(0)
    model = Model(config, torch.ones(10, dtype=torch.int64)).train()
    examples = Examples(torch.tensor([[0, 1, 2, 3], [4, 5, 6, 7]]), torch.tensor([8, 9]))
    batch = inputs_of(model, examples)
    zeros = batch._replace(
        interests=batch.interests._replace(raw=torch.zeros_like(batch.interests.raw))
    )
    loss = model.objective._terms["reconstruct"](zeros)
    squares = model.table(batch.history.rows).square().sum(dim=2)[batch.history.mask]
    torch.testing.assert_close(loss, squares.mean())


@pytest.mark.parametrize(
    "objective", ["softmax", "served-max", "gated-max", "partitioned-max", "set-matching"]
)
@pytest.mark.parametrize(
    "encoder",
    [
        {"encoder": "transformer", "readout": "facets"},
        {"encoder": "transformer", "readout": "tokens"},
        {"encoder": "re4", "recency": True, "hidden": 8},
    ],
    ids=["facets", "tokens", "re4"],
)
def test_every_loss_of_several_interests_teaches_every_weight(objective, encoder):
    settings = {"dim": 8, "interests": 2, "history": 4, "negatives": 50, "item_bias": True}
    settings |= {"score_temperature": 0.2, "learned_temperature": True, "mutual_information": 0.1}
    config = FitConfig(**settings, **encoder, positions="all", objective=objective)
    torch.manual_seed(0)
    model = Model(config, torch.ones(10, dtype=torch.int64)).train()
    model.start_epoch()
    loss, terms = model(
        Examples(torch.tensor([[0, 1, 2, 3]] * 9), torch.tensor([[0, 2, 3, 9]] * 9))
    )
    loss.backward()
    assert set(terms) == {objective, "mutual_information"}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any() or name.endswith(("distance_bias", "tokens")), name
    assert model.vectors().shape == (10, model.encoder.dim)


@pytest.mark.parametrize("encoder", ["transformer", "re4"])
def test_all_positions_at_once_have_the_loss_and_the_gradient_of_one_prefix_an_example(encoder):
    settings = {"dim": 8, "interests": 2, "history": 4, "dropout": 0.0, "sampler": "full"}
    config = FitConfig(**settings, encoder=encoder, positions="all")
    torch.manual_seed(0)
    model = Model(config, torch.ones(10, dtype=torch.int64))
    sequences = Examples(
        torch.tensor([[0, 1, 2, 3], [4, 5, 6, 7]]), torch.tensor([[0, 2, 3, 9], [5, 0, 7, 8]])
    )
    rows = [[0, 0, 0, 1], [0, 0, 1, 2], [0, 1, 2, 3], [0, 0, 0, 4], [0, 4, 5, 6], [4, 5, 6, 7]]
    one_by_one = Examples(torch.tensor(rows), torch.tensor([2, 3, 9, 5, 7, 8]))
    assert sequences.size == one_by_one.size == 6
    gradients = []
    for examples in (sequences, one_by_one):
        model.zero_grad()
        loss, _ = model(examples)
        loss.backward()
        gradients.append([loss.detach(), *(p.grad.clone() for p in model.parameters())])
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


SEQUENCES = torch.tensor([[0, 1, 2, 3], [4, 5, 6, 7]]), torch.tensor([[0, 2, 3, 9], [5, 0, 7, 8]])


def a_model(positions: str, objective: str) -> Model:
    encoder = "transformer" if positions == "all" else "re4"
    settings = {"dim": 8, "interests": 2, "history": 4, "negatives": 50}
    torch.manual_seed(0)
    config = FitConfig(**settings, encoder=encoder, positions=positions, objective=objective)
    return Model(config, torch.ones(10, dtype=torch.int64))


def test_each_target_and_each_next_item_comes_with_its_weight():
    weights = torch.tensor([[0, 2, 3, 9], [5, 0, 7, 8]]) / 10
    batch = inputs_of(a_model("all", "set-matching"), Examples(*SEQUENCES, weights))
    assert batch.weights is not None
    torch.testing.assert_close(batch.weights, batch.targets / 10)
    assert batch.futures is not None
    assert (batch.futures == 0).any()
    torch.testing.assert_close(batch.future_weights, batch.futures / 10)
    batch = inputs_of(a_model("all", "served-max"), Examples(*SEQUENCES))
    assert batch.weights is batch.future_weights is None


@pytest.mark.parametrize(
    ("positions", "objective"),
    [("last", "softmax"), ("last", "served-max"), ("all", "served-max"), ("all", "set-matching")],
)
def test_weights_of_1_give_the_same_loss_and_gradient_to_the_bit(positions, objective):
    rows, targets = SEQUENCES if positions == "all" else (SEQUENCES[0], torch.tensor([9, 8]))
    results = []
    for weights in (None, torch.ones(targets.shape)):
        model = a_model(positions, objective)
        loss, _ = model(Examples(rows, targets, weights))
        loss.backward()
        results.append([loss, *(p.grad for p in model.parameters() if p.grad is not None)])
    assert len(results[0]) > 2
    for plain, weighted in zip(*results, strict=True):
        assert torch.equal(plain, weighted)
