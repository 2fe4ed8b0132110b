"""What every loss term takes, and how one is built from the settings of a fit."""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Self

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from index.encoders import History, Interests
from index.encoders.arguments import Merge


class LossInputs(NamedTuple):
    """The inputs of the loss terms for a batch of B examples.

    history: of each example, or of the sequences of which the examples are all positions; with the
    item vectors as they are served: those that the encoder read have dropout.
    targets (B,) rows, target_vectors (B, D); negatives (S,) rows shared by the batch,
    negative_vectors (S, D). target_log_q (B,), negative_log_q (S,): log of how often each is drawn,
    None where all are drawn equally often. target_parts (B,), negative_parts (S,): 0..K - 1, if the
    objective partitions the items. futures (B, W), future_vectors (B, W, D): the next W items, the
    target first, 0 = none, if the objective learns several. weights (B,), future_weights (B, W):
    what each target, and each of the next items, counts; None if all count alike.
    """

    history: History
    interests: Interests
    targets: Tensor
    target_vectors: Tensor
    negatives: Tensor
    negative_vectors: Tensor
    target_log_q: Tensor | None = None
    negative_log_q: Tensor | None = None
    target_parts: Tensor | None = None
    negative_parts: Tensor | None = None
    futures: Tensor | None = None
    future_vectors: Tensor | None = None
    weights: Tensor | None = None
    future_weights: Tensor | None = None

    @property
    def all_positions(self) -> bool:
        """Whether the examples are all positions of the histories, not one history each."""
        return self.interests.attention.shape[2] == 0


def weighted_mean(losses: Tensor, weights: Tensor | None) -> Tensor:
    """sum_b w_b l_b / sum_b w_b of losses (B,), or (B, ...), summed over all but the examples.

    weights (B,): None is 1 for each, with the same digits.
    """
    if weights is None:
        return losses.sum() / len(losses)
    by_example = weights.view(-1, *[1] * (losses.ndim - 1))
    return (losses * by_example).sum() / weights.sum()


class LossArguments(BaseModel):
    """Base of the arguments of a loss term. A description is the help of the option of its name."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class LossTerm(nn.Module):
    """Base class of the losses. A call returns a scalar. A term is built from its `Arguments`."""

    class Arguments(LossArguments):
        pass

    # How the scores of K interests become one, where this is the main loss.
    merge: ClassVar[Merge] = "max"
    # Whether it learns several next items, which only all positions of a sequence have.
    needs_positions: ClassVar[bool] = False
    future_items = 0
    # Whether it reads `history` or the interests' attention: then it needs one history an example.
    reads_history: ClassVar[bool] = False

    def __init__(self, arguments: LossArguments | None = None) -> None:
        super().__init__()

    @classmethod
    def build(cls, settings: Mapping[str, Any]) -> Self:
        """The term with those of the settings that are its arguments; defaults for the rest."""
        own = {name: settings[name] for name in cls.Arguments.model_fields if name in settings}
        return cls(cls.Arguments.model_validate(own))

    def forward(self, batch: LossInputs) -> Tensor:
        raise NotImplementedError  # each term defines it

    def start_epoch(self, number: int) -> None:
        """Called before each epoch, counted from 0; for terms that have stages."""

    def __call__(self, batch: LossInputs) -> Tensor:
        result: Tensor = super().__call__(batch)
        return result
