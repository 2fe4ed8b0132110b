"""The examples of a log that a model is trained on."""

import math

import torch

from index.encoders.time_gaps import gap_embeddings
from training.config import FitConfig
from training.data.event_times import gaps_of
from training.data.examples import Stream, open_stream
from training.data.packed_log import PackedLog
from training.models.model import Model


def stream_for(
    model: Model,
    config: FitConfig,
    log: PackedLog,
    batch_size: int | None,
    device: torch.device,
    since: float = -math.inf,
) -> Stream:
    """With gaps, if the model reads them. See open_stream."""
    with_gaps = model.encoder.reads_gaps
    return open_stream(
        config.positions, log, config.history, batch_size, config.seed, since, device, with_gaps
    )


def restrict_gaps(model: Model, log: PackedLog) -> None:
    """Have a fresh model read the times that the log has, and for others the nearest of them."""
    for gaps in gap_embeddings(model.encoder).values():
        gaps.restrict(gaps_of(log))
