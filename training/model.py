"""What a fit learns: the item table, the encoder over it, and the objective."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from index.encoders import Encoder, History, build_encoder
from training.config import FitConfig
from training.examples import Examples
from training.negatives import build_sampler
from training.objectives import Forward, Objective
from training.objectives.re4 import ReAttend, ReConstruct, ReContrast
from training.objectives.softmax import HardSoftmax


def encoder_arguments(config: FitConfig) -> dict[str, object]:
    """What the manifest must hold to build the encoder again."""
    return {
        "dim": config.dim,
        "interests": config.interests,
        "hidden": config.hidden,
        "head": config.head,
    }


def build_objective(config: FitConfig) -> Objective:
    return Objective(
        {
            "softmax": (1.0, HardSoftmax()),
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
        }
    )


class Model(nn.Module):
    """Table (N + 1, D), row 0 zero; encoder; objective. Weights are drawn by torch."""

    def __init__(self, config: FitConfig, items: int) -> None:
        super().__init__()
        self.table = nn.Embedding(
            items + 1, config.dim, padding_idx=0, sparse=items > config.sparse_above
        )
        nn.init.normal_(self.table.weight, std=config.table_std)
        with torch.no_grad():
            self.table.weight[0] = 0
        self.encoder: Encoder = build_encoder(config.encoder, encoder_arguments(config))
        self.objective = build_objective(config)
        self._sample = build_sampler(config.sampler, items, config.negatives)
        self._dropout = config.dropout

    def forward(self, examples: Examples) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch, and its terms."""
        rows = torch.from_numpy(examples.rows).to(self.table.weight.device)
        targets = torch.from_numpy(examples.targets).to(rows.device)
        negatives = self._sample(targets).rows
        # One look-up, so that the table gets one gradient.
        looked_up = self.table(torch.cat([rows.flatten(), targets, negatives]))
        history, target_vectors, negative_vectors = looked_up.split(
            [rows.numel(), len(targets), len(negatives)]
        )
        vectors = F.dropout(history.view(*rows.shape, -1), self._dropout, self.training)
        seen = History(rows, vectors, rows > 0)
        return self.objective(  # type: ignore[no-any-return]
            Forward(seen, self.encoder(seen), targets, target_vectors, negatives, negative_vectors)
        )
