"""What a fit trains: the item table, the encoder over it, and the objective."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from index.encoders import ENCODERS, Encoder, History, build_encoder
from index.encoders.arguments import CATALOG_SIZE, MERGE, TIME_GAPS, EncoderArguments, Merge
from training.data.examples import Examples
from training.models.item_terms import ItemTerms
from training.models.negative_sampling import Negatives, build_sampler
from training.models.objectives import MAIN_LOSSES, LossInputs, build_objective
from training.models.objectives.set_matching import next_items, next_values
from training.models.options import ModelOptions
from training.models.sharded_table import ShardedTable


def encoder_arguments(options: ModelOptions, items: int) -> dict[str, object]:
    """The options that the encoder takes: what a manifest must hold to build it again.

    items: number in the catalogue. An open K, the number of interests, must have been selected;
    times are not read unless that has been decided.
    """
    settings = options.model_dump() | {CATALOG_SIZE: items, MERGE: merge_of(options)}
    settings[TIME_GAPS] = bool(options.time_gaps)
    fields = ENCODERS[options.encoder].Arguments.model_fields
    base = EncoderArguments.model_fields.keys() - {"dim"}
    # Those that have no effect are left out, as in releases made before there were any.
    return {
        name: settings[name]
        for name, field in fields.items()
        if name not in base or settings[name] != field.default
    }


def merge_of(options: ModelOptions) -> Merge:
    """How the main loss merges the scores of the interests."""
    return MAIN_LOSSES[options.model_dump()["objective"]].term.merge


class Part(NamedTuple):
    """The part of a batch, from begin to end, that the process of a rank computes."""

    begin: int
    end: int
    rank: int


class Model(nn.Module):
    """Table (N + 1, D), row 0 zero; encoder; objective. Weights are drawn by torch.

    popularity (N + 1,): interactions of each row in the training log. table: the item table, if it
    is in shards.
    """

    def __init__(
        self, options: ModelOptions, popularity: Tensor, table: ShardedTable | None = None
    ) -> None:
        super().__init__()
        items = len(popularity) - 1
        self.table: nn.Embedding | ShardedTable = table or _whole_table(options, items)
        self.encoder: Encoder = build_encoder(options.encoder, encoder_arguments(options, items))
        self.terms = ItemTerms(
            popularity, options.item_bias, merge_of(options), self.encoder.interests
        )
        self.objective = build_objective(options.model_dump())
        self._sample = build_sampler(options.sampler, popularity, options.negatives)
        self._dropout = options.dropout
        self._cosine_scores = options.score_temperature > 0

    @property
    def weight(self) -> nn.Parameter:
        """The item table (N + 1, D), of a model that has it whole."""
        assert isinstance(self.table, nn.Embedding)
        weight = self.table.weight
        assert isinstance(weight, nn.Parameter)
        return weight

    @torch.no_grad()
    def vectors(self) -> NDArray[np.float32]:
        """(N + 1, D): the item vectors as they are served, row 0 zero."""
        result: NDArray[np.float32] = self.vectors_on_device().cpu().numpy()
        return result

    @torch.no_grad()
    def vectors_on_device(self) -> Tensor:
        """As vectors, where the model is. Of a table in shards on the CPU of the first process, and
        none, (0, D), on the others, all of which must call it."""
        if isinstance(self.table, ShardedTable):
            weight = self.table.gather(self.table.shard)
        else:
            weight = self.weight.detach()
        return self._served_vectors(weight, torch.arange(len(weight), device=weight.device))

    @torch.no_grad()
    def place_items(self, vectors: Tensor) -> None:
        """Set the content of rows 1..M to vectors (M, D), but keep it where a vector is zero."""
        rows = torch.nonzero(vectors.any(dim=1))[:, 0]
        if isinstance(self.table, ShardedTable):
            self.table.replace(rows + 1, vectors[rows])
        else:
            self.weight[rows + 1] = vectors[rows].to(self.weight.device)

    def start_epoch(self) -> None:
        """Assign each item to a part by its present vector, if the objective partitions them."""
        if isinstance(self.table, nn.Embedding):
            self.terms.refresh_parts(self.weight.detach())

    def _served_vectors(self, content: Tensor, rows: Tensor) -> Tensor:
        """(n, D and the terms) of the content (n, D) of rows (n,)."""
        return self.terms.append(
            F.normalize(content, dim=-1) if self._cosine_scores else content, rows
        )

    def forward(
        self, examples: Examples, part: Part | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch, or of a part of it, and its terms.

        The negatives and the dropout of a part are those of the whole batch, from the state of
        torch's generator, which is left as after the whole. What encoder and losses draw is the
        rank's own.
        """
        negatives = self._sample(examples.targets[examples.targets > 0])
        if part is None:
            return self._losses(examples, negatives, None)
        device = examples.rows.device
        keep = None
        if self._dropout:
            shape = *examples.rows.shape, self.encoder.dim
            whole = self._drop(torch.ones(shape, device=device))
            keep = whole[part.begin : part.end]
        own, negatives = _cut(examples, negatives, part)
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(int(torch.randint(2**62, ())) + part.rank)
            return self._losses(own, negatives, keep)

    def _drop(self, vectors: Tensor) -> Tensor:
        return F.dropout(vectors, self._dropout, self.training)

    def _losses(
        self, examples: Examples, negatives: Negatives, keep: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """keep: factors of the history vectors' dropout; None draws them."""
        rows, targets = examples.rows, examples.targets
        ends = targets > 0
        count = self.objective.future_items
        futures = next_items(targets, count) if count else targets.new_empty(0)
        targets = targets[ends]
        # One lookup, so that the table gets one gradient.
        looked_up = torch.cat([rows.flatten(), targets, negatives.rows, futures.flatten()])
        history_vectors, target_vectors, negative_vectors, future_vectors = torch.split(
            self._served_vectors(self.table(looked_up), looked_up),
            [rows.numel(), len(targets), len(negatives.rows), futures.numel()],
        )
        history = History(rows, history_vectors.view(*rows.shape, -1), rows > 0)
        # Dropout makes the encoder's task harder. The losses compare with the items as they are.
        dropped = self._drop(history.vectors) if keep is None else history.vectors * keep
        read = history._replace(vectors=dropped, gaps=examples.gaps)
        content = history.vectors[..., : self.encoder.content]
        inputs = LossInputs(
            history._replace(vectors=content),
            self.encoder.prefix_interests(read, ends) if ends.ndim > 1 else self.encoder(read),
            targets,
            target_vectors,
            negatives.rows,
            negative_vectors,
            negatives.target_log_q,
            negatives.log_q,
            self.terms.parts_of(targets),
            self.terms.parts_of(negatives.rows),
            futures if count else None,
            future_vectors.view(*futures.shape, -1) if count else None,
            *_target_weights(examples, ends, count),
        )
        result: tuple[Tensor, dict[str, Tensor]] = self.objective(inputs)
        return result


def _whole_table(options: ModelOptions, items: int) -> nn.Embedding:
    sparse = items > options.sparse_update_threshold
    table = nn.Embedding(items + 1, options.dim, padding_idx=0, sparse=sparse)
    nn.init.normal_(table.weight, std=options.item_init_std)
    with torch.no_grad():
        table.weight[0] = 0
    return table


def _cut(examples: Examples, negatives: Negatives, part: Part) -> tuple[Examples, Negatives]:
    """The part of a batch, with the same negatives."""
    own = slice(part.begin, part.end)
    rows, targets, weights, gaps = examples
    if (log_q := negatives.target_log_q) is not None:
        before = int((targets[: part.begin] > 0).sum())
        log_q = log_q[before : before + int((targets[own] > 0).sum())]
    others = (None if part is None else part[own] for part in (weights, gaps))
    return Examples(rows[own], targets[own], *others), negatives._replace(target_log_q=log_q)


def _target_weights(
    examples: Examples, ends: Tensor, count: int
) -> tuple[Tensor | None, Tensor | None]:
    """Of the targets (B,), and of the next `count` items (B, count), if any are learnt."""
    if examples.weights is None:
        return None, None
    weights = examples.weights
    return weights[ends], next_values(weights, ends, count) if count else None
