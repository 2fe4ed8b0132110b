"""The engines that can hold an index: faiss, in files of the release, and Milvus, in a collection.

An index in files needs no engine: whoever opens the release reads them.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from index.ann.spec import MilvusSpec
from index.retrieval.search import ItemIndex


class Engine(Protocol):
    """What opens indexes that are not in files."""

    def open(self, spec: MilvusSpec, vectors: NDArray[np.float32]) -> ItemIndex:
        """The index over vectors (N + 1, D), row 0 padding.

        Raises ValueError if the engine lacks it or holds a part of it, SearchUnavailableError if it
        cannot be asked.
        """
        ...
