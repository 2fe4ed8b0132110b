"""The metrics of weights in training, by exact search, on the device that they are trained on."""

import copy
from typing import NoReturn

import torch
from torch import Tensor

from index.retrieval.catalog import Catalog
from training.config import FitConfig
from training.evaluation.batched import BatchedScorer
from training.evaluation.evaluate import evaluate, exact_retriever
from training.evaluation.protocols import EvaluationCase
from training.evaluation.rankings import encode_cases
from training.models.device import memory_needed
from training.models.model import Model

_CHECKED_HISTORIES = 256  # their interests must be finite


def validate(
    model: Model,
    vectors: Tensor,
    catalog: Catalog,
    cases: list[EvaluationCase],
    config: FitConfig,
) -> dict[str, float]:
    """As `evaluate`. vectors: the model's, of `vectors_on_device`.

    Raises ArithmeticError if a vector that is served is not finite, DeviceMemoryError.
    """
    model.eval()
    # With cosine scores, the loss may be finite although the weights are not.
    if not vectors.isfinite().all():
        _refuse("item vectors")
    checked = cases[:_CHECKED_HISTORIES]
    if vectors.is_cuda and checked and cases[0].candidates is None:
        scorer = BatchedScorer(catalog, model.encoder, vectors, config.history)
        with memory_needed(f"validation on {vectors.device}: lower dim (now {config.dim})"):
            if not scorer.encode(checked).isfinite().all():
                _refuse("interests")
            return scorer.evaluate(cases, config.exclude_seen)
    # What serves computes on the CPU.
    encoder = copy.deepcopy(model.encoder).cpu() if vectors.is_cuda else model.encoder
    retriever = exact_retriever(catalog, encoder, vectors.cpu().numpy(), config.history)
    if checked and not torch.from_numpy(encode_cases(retriever, checked)).isfinite().all():
        _refuse("interests")
    return evaluate(retriever, cases, config.exclude_seen)


def _refuse(name: str) -> NoReturn:
    raise ArithmeticError(f"{name} are not finite")
