"""The event types of interactions, and what each type counts as a target."""

from collections.abc import Mapping
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray


class EventWeights(NamedTuple):
    """Of n interactions: codes (n,) int32 are indices into types (E,), str, "" where there is none.

    by_type (E,) float32: the weight of each type as a target. 0: in histories alone, never a
    target.
    """

    codes: NDArray[np.int32]
    types: NDArray[np.object_]
    by_type: NDArray[np.float32]

    @classmethod
    def of(
        cls, codes: NDArray[np.int32], types: NDArray[np.object_], weights: Mapping[str, float]
    ) -> Self:
        """weights: of the types that were named; the others have weight 1."""
        by_type = np.array([weights.get(name, 1.0) for name in types], dtype=np.float32)
        return cls(codes, types, by_type)

    @property
    def weights(self) -> NDArray[np.float32]:
        """(n,): of each interaction."""
        return self.by_type[self.codes]

    def take(self, chosen: NDArray[np.integer] | NDArray[np.bool_]) -> Self:
        """Of the interactions at these indices, or under a mask."""
        return self._replace(codes=self.codes[chosen])
