"""Warm start: initialize a model from a trained one, by item id, and train it on recent events."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from index.encoders import Encoder
from index.encoders.arguments import FORMER_ARGUMENTS, TIME_GAPS
from index.encoders.time_gaps import gap_embeddings
from index.release.manifest import EncoderSpec
from index.retrieval.catalog import Catalog
from training.config import FitConfig
from training.data.packed_log import PackedLog
from training.fitting.optimization import build_optimizers, training_step
from training.fitting.stream import stream_for
from training.models.model import Model, encoder_arguments

_CATALOG_SIZE = "items"  # the encoder argument that holds the size of the catalog
_NEIGHBOR_WINDOW = 5  # positions before and after a new item
_RANDOM_SHARE = (
    0.3  # weight of a new item's random vector; without it, equal neighbors give equal vectors
)


class TrainedModel(NamedTuple):
    """Encoder, item vectors (N + 1, D), and the catalog that names the rows of the vectors."""

    encoder: Encoder
    vectors: NDArray[np.float32]
    catalog: Catalog


def is_encoder_compatible(spec: EncoderSpec, config: FitConfig) -> bool:
    """Whether the weights of a released encoder fit the encoder that `config` describes."""
    required: dict[str, object] = {**encoder_arguments(config, 0), _CATALOG_SIZE: None}
    current = {FORMER_ARGUMENTS.get(name, name): v for name, v in spec.arguments.items()}
    released: dict[str, object] = {**current, _CATALOG_SIZE: None}
    if TIME_GAPS in required:  # releases made before 2026-11-29 leave it out
        released.setdefault(TIME_GAPS, False)
    return released == required and spec.name == config.encoder


def are_vectors_compatible(source: TrainedModel, config: FitConfig) -> bool:
    return source.encoder.content == config.dim


@torch.no_grad()
def initialize_from(
    model: Model, catalog: Catalog, source: TrainedModel, with_encoder: bool, log: PackedLog
) -> None:
    """Copy the weights of `source` into a fresh model over `catalog`.

    A new item starts near the items before and after it in the log, plus a part of its own random
    vector. Its length is the mean length of the vectors of the rarer half of the items.

    with_encoder: copy the encoder's weights too. log: in rows of `catalog`.
    """
    source_rows = torch.tensor(source.catalog.rows(catalog.ids))  # for rows 1..N; 0 if new
    known, new = torch.nonzero(source_rows)[:, 0] + 1, torch.nonzero(source_rows == 0)[:, 0] + 1
    table, content = model.weight, source.encoder.content
    copied = torch.from_numpy(source.vectors[source_rows[known - 1].numpy()]).to(table.device)
    table[known] = copied[:, :content]
    if len(new):
        rarer = source.vectors[len(source.vectors) // 2 :, :content]
        lengths = np.linalg.norm(rarer, axis=1)
        sums = _neighbor_sums(log, table.cpu().numpy(), new.numpy())
        neighbors = torch.from_numpy(sums).to(table.device)
        initial = F.normalize(neighbors) + _RANDOM_SHARE * F.normalize(table[new])
        table[new] = F.normalize(initial) * float(lengths.mean())
    if with_encoder:
        model.terms.take(known, copied[:, content:], table)
        _copy_encoder(model.encoder, source.encoder, known, source_rows[known - 1])


def train_on_recent(
    model: Model, config: FitConfig, log: PackedLog, since: float, passes: int
) -> None:
    """Train on the interactions since a time only, in small batches.

    Recent interactions are few: in an epoch over the whole log they would hardly change the model.
    """
    stream = stream_for(model, config, log, None, model.weight.device, since)
    optimizers = build_optimizers(model, config)
    model.train()
    for number in range(passes if len(stream) else 0):
        model.objective.start_epoch(number)
        for examples in stream.epoch(number):
            training_step(model, optimizers, examples, config.precision)


def _neighbor_sums(
    log: PackedLog, table: NDArray[np.float32], new: NDArray[np.int64]
) -> NDArray[np.float32]:
    """(new, D): for each new row, the sum of the vectors of its known neighbors in histories.

    Zeros if it has none.
    """
    index = np.full(len(table), -1)
    index[new] = np.arange(len(new))
    sums = np.zeros((len(new), table.shape[1]), dtype=np.float32)
    for _, later, earlier in log.pairs(_NEIGHBOR_WINDOW):
        for items, neighbors in ((later, earlier), (earlier, later)):
            selected = (index[items] >= 0) & (index[neighbors] < 0)
            np.add.at(sums, index[items[selected]], table[neighbors[selected]])
    return sums


def _copy_encoder(encoder: Encoder, source: Encoder, rows: Tensor, source_rows: Tensor) -> None:
    """Copy item embeddings row by row, and all other weights as they are."""
    weights = source.state_dict()
    nearest = {f"{name}.nearest": gaps for name, gaps in gap_embeddings(encoder).items()}
    embeddings = {f"{n}.weight" for n, m in encoder.named_modules() if isinstance(m, nn.Embedding)}
    for name, weight in encoder.state_dict().items():
        if name in embeddings:
            weight[rows] = weights[name][source_rows].to(weight.device)
        elif name in nearest:
            nearest[name].extend(weights[name])
        else:
            weight.copy_(weights[name])
