"""What a fit trains: the item table, the encoder over it, and the objective."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from index.encoders import ENCODERS, Encoder, History, build_encoder
from index.encoders.arguments import CATALOG_SIZE
from training.data.examples import Examples
from training.models.negative_sampling import build_sampler
from training.models.objectives import LossInputs, build_objective
from training.models.options import ModelOptions


def encoder_arguments(options: ModelOptions, items: int) -> dict[str, object]:
    """The options that the encoder takes: what a manifest must hold to build it again.

    items: number in the catalogue. An open K, the number of interests, must have been selected.
    """
    settings = options.model_dump() | {CATALOG_SIZE: items}
    arguments = {name: settings[name] for name in ENCODERS[options.encoder].Arguments.model_fields}
    if not options.score_temperature:
        del arguments["score_temperature"]  # as in releases made before there was one
    return arguments


class Model(nn.Module):
    """Table (N + 1, D), row 0 zero; encoder; objective. Weights are drawn by torch.

    popularity (N + 1,): interactions of each row in the training log.
    """

    def __init__(self, options: ModelOptions, popularity: Tensor) -> None:
        super().__init__()
        items = len(popularity) - 1
        sparse = items > options.sparse_update_threshold
        self.table = nn.Embedding(items + 1, options.dim, padding_idx=0, sparse=sparse)
        nn.init.normal_(self.table.weight, std=options.item_init_std)
        with torch.no_grad():
            self.table.weight[0] = 0
        self.encoder: Encoder = build_encoder(options.encoder, encoder_arguments(options, items))
        self.objective = build_objective(options.model_dump())
        self._sample = build_sampler(options.sampler, popularity, options.negatives)
        self._dropout = options.dropout
        self._cosine_scores = options.score_temperature > 0

    @torch.no_grad()
    def vectors(self) -> NDArray[np.float32]:
        """(N + 1, D): the item vectors as they are served, row 0 zero."""
        result: NDArray[np.float32] = self._served_vectors(self.table.weight).numpy()
        return result

    def _served_vectors(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors, dim=-1) if self._cosine_scores else vectors

    def forward(self, examples: Examples) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch, and its terms."""
        rows = torch.from_numpy(examples.rows)
        targets = torch.from_numpy(examples.targets)
        ends = targets > 0
        targets = targets[ends]
        negatives = self._sample(targets)
        # One lookup, so that the table gets one gradient.
        looked_up = self.table(torch.cat([rows.flatten(), targets, negatives.rows]))
        history_vectors, target_vectors, negative_vectors = torch.split(
            self._served_vectors(looked_up), [rows.numel(), len(targets), len(negatives.rows)]
        )
        history = History(rows, history_vectors.view(*rows.shape, -1), rows > 0)
        # Dropout makes the encoder's task harder. The losses compare with the items as they are.
        dropped = F.dropout(history.vectors, self._dropout, self.training)
        read = history._replace(vectors=dropped)
        inputs = LossInputs(
            history,
            self.encoder.prefix_interests(read, ends) if ends.ndim > 1 else self.encoder(read),
            targets,
            target_vectors,
            negatives.rows,
            negative_vectors,
            negatives.target_log_q,
            negatives.log_q,
        )
        result: tuple[Tensor, dict[str, Tensor]] = self.objective(inputs)
        return result
