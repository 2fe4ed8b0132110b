"""What a fit learns: the item table, the encoder over it, and the objective."""

import inspect

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from index.encoders import ENCODERS, Encoder, History, build_encoder
from training.config import FitConfig
from training.data.examples import Examples
from training.models.negative_sampling import build_sampler
from training.models.objectives import Forward, LossTerm, Objective
from training.models.objectives.re4 import ReAttend, ReConstruct, ReContrast
from training.models.objectives.remi import HardNegatives, RoutingRegularizer
from training.models.objectives.softmax import HardReadoutSoftmax, MultiLoss, ServedMax
from training.models.objectives.timirec import TargetInterest


def encoder_arguments(config: FitConfig, items: int) -> dict[str, object]:
    """What the manifest must hold to build the encoder again: those settings that it takes.

    Where K is open, `training.choice` is to settle it first.
    """
    settings = config.model_dump() | {"items": items}
    taken = inspect.signature(ENCODERS[config.encoder]).parameters
    cosine = {"score_temperature": config.score_temperature} if config.score_temperature else {}
    return {name: settings[name] for name in taken} | cosine


def build_objective(config: FitConfig) -> Objective:
    return Objective(
        {
            config.objective: (1.0, _main_loss(config)),
            "multi_loss": (config.multi_loss, MultiLoss()),
            "recontrast": (
                config.recontrast,
                ReContrast(
                    config.temperature,
                    config.gamma,
                    config.auxiliary_norm,
                    config.recontrast_denominator,
                ),
            ),
            "reattend": (config.reattend, ReAttend()),
            "reconstruct": (
                config.reconstruct,
                ReConstruct(
                    config.dim,
                    config.history,
                    config.reconstruct_hidden,
                    config.gamma,
                    config.auxiliary_norm,
                ),
            ),
            "routing_reg_weight": (config.routing_reg_weight, RoutingRegularizer()),
        }
    )


def _main_loss(config: FitConfig) -> LossTerm:
    match config.objective:
        case "softmax":
            return HardReadoutSoftmax(config.selection, config.inverse_temperature, config.dim)
        case "served-max":
            return ServedMax()
        case "hard-negatives":
            return HardNegatives(config.ihn_beta)
        case "target-interest":
            return TargetInterest(config.distil_temperature, config.pretrain_epochs)


class Model(nn.Module):
    """Table (N + 1, D), row 0 zero; encoder; objective. Weights are drawn by torch.

    popularity (N + 1,): interactions of each row in the log that is trained on.
    """

    def __init__(self, config: FitConfig, popularity: Tensor) -> None:
        super().__init__()
        items = len(popularity) - 1
        self.table = nn.Embedding(
            items + 1, config.dim, padding_idx=0, sparse=items > config.sparse_above
        )
        nn.init.normal_(self.table.weight, std=config.item_init_std)
        with torch.no_grad():
            self.table.weight[0] = 0
        self.encoder: Encoder = build_encoder(config.encoder, encoder_arguments(config, items))
        self.objective = build_objective(config)
        self._sample = build_sampler(config.sampler, popularity, config.negatives)
        self._dropout = config.dropout
        self._cosine = config.score_temperature > 0

    @torch.no_grad()
    def vectors(self) -> NDArray[np.float32]:
        """(N + 1, D): the items as they are scored, row 0 zero."""
        result: NDArray[np.float32] = self._scored(self.table.weight).numpy()
        return result

    def _scored(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors, dim=-1) if self._cosine else vectors

    def forward(self, examples: Examples) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch, and its terms."""
        rows = torch.from_numpy(examples.rows)
        targets = torch.from_numpy(examples.targets)
        negatives = self._sample(targets)
        # One look-up, so that the table gets one gradient.
        looked_up = self._scored(self.table(torch.cat([rows.flatten(), targets, negatives.rows])))
        history, target_vectors, negative_vectors = torch.split(
            looked_up, [rows.numel(), len(targets), len(negatives.rows)]
        )
        vectors = F.dropout(history.view(*rows.shape, -1), self._dropout, self.training)
        seen = History(rows, vectors, rows > 0)
        batch = Forward(
            seen,
            self.encoder(seen),
            targets,
            target_vectors,
            negatives.rows,
            negative_vectors,
            negatives.target_log_q,
            negatives.log_q,
        )
        result: tuple[Tensor, dict[str, Tensor]] = self.objective(batch)
        return result
