"""A fit that begins where another ended: the vectors of the items that stay, and the encoder."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from index.encoders import Encoder
from index.encoders.arguments import FORMER_ARGUMENTS
from index.release.manifest import EncoderSpec
from index.retrieval.catalog import Catalog
from training.config import FitConfig
from training.data.examples import ExampleStream
from training.data.interactions import PackedLog
from training.fitting.trainer import build_optimizers, step
from training.models.model import Model, encoder_arguments

_BY_ITEM = "items"  # the encoder's argument that is the size of the catalogue
_NEAR = 5  # places to either side of a new item
_DRAWN = 0.3  # of a new item's drawn vector, to one of its neighbours: no two begin as the same


class Parts(NamedTuple):
    """A trained model: encoder, vectors (N + 1, D), and the catalogue whose rows they are."""

    encoder: Encoder
    vectors: NDArray[np.float32]
    catalog: Catalog


def encoder_fits(live: EncoderSpec, config: FitConfig) -> bool:
    """Whether a fit with this config makes an encoder that the live weights can be put into."""
    wanted = encoder_arguments(config, 0)
    there = {FORMER_ARGUMENTS.get(name, name): value for name, value in live.arguments.items()}
    alike: bool = {**there, _BY_ITEM: None} == {**wanted, _BY_ITEM: None}
    return alike and live.name == config.encoder


def vectors_fit(parts: Parts, config: FitConfig) -> bool:
    return bool(parts.vectors.shape[1] == config.dim)


@torch.no_grad()
def warm(model: Model, catalog: Catalog, parts: Parts, encoder: bool, log: PackedLog) -> None:
    """Put what can be kept of `parts` into a fresh model over `catalog`.

    A new item begins among those that were taken just before and after it in the log, which is of
    this catalogue's rows, and near what was drawn for it; as long as the vectors of the rarer half
    of the items are.
    """
    old = torch.tensor(parts.catalog.rows(catalog.ids))  # of rows 1..N, 0 where new
    rows, fresh = torch.nonzero(old)[:, 0] + 1, torch.nonzero(old == 0)[:, 0] + 1
    table = model.table.weight
    table[rows] = torch.from_numpy(parts.vectors[old[rows - 1].numpy()])
    if len(fresh):
        lengths = np.linalg.norm(parts.vectors[len(parts.vectors) // 2 :], axis=1)
        near = torch.from_numpy(_around(log, table.numpy(), fresh.numpy()))
        begun = F.normalize(near) + _DRAWN * F.normalize(table[fresh])
        table[fresh] = F.normalize(begun) * float(lengths.mean())
    if encoder:
        _put(model.encoder, parts.encoder, rows, old[rows - 1])


def catch_up(model: Model, config: FitConfig, log: PackedLog, since: float, passes: int) -> None:
    """Train on what was taken since a time alone, in small batches.

    What is new is little: in an epoch with all the rest it would hardly move.
    """
    stream = ExampleStream(log, config.history, None, config.seed, since)
    optimizers = build_optimizers(model, config)
    model.train()
    for number in range(passes if len(stream) else 0):
        model.objective.start_epoch(number)
        for examples in stream.epoch(number):
            step(model, optimizers, examples)


def _around(
    log: PackedLog, table: NDArray[np.float32], fresh: NDArray[np.int64]
) -> NDArray[np.float32]:
    """For each fresh row the sum of the vectors of the others beside it in histories; may be 0."""
    place = np.full(len(table), -1)
    place[fresh] = np.arange(len(fresh))
    users = np.repeat(np.arange(len(log)), np.diff(log.offsets))
    sums = np.zeros((len(fresh), table.shape[1]), dtype=np.float32)
    for distance in range(1, _NEAR + 1):
        together = users[distance:] == users[:-distance]
        later, earlier = log.rows[distance:][together], log.rows[:-distance][together]
        for one, other in ((later, earlier), (earlier, later)):
            found = (place[one] >= 0) & (place[other] < 0)
            np.add.at(sums, place[one[found]], table[other[found]])
    return sums


def _put(encoder: Encoder, trained: Encoder, rows: Tensor, old: Tensor) -> None:
    """The weights of a table of items go by item, the others as they are."""
    there = trained.state_dict()
    of_items = {f"{n}.weight" for n, m in encoder.named_modules() if isinstance(m, nn.Embedding)}
    for name, weight in encoder.state_dict().items():
        if name in of_items:
            weight[rows] = there[name][old]
        else:
            weight.copy_(there[name])
