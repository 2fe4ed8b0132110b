"""The popularity baselines: the best sellers of the training part, and of its last weeks."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from index.retrieval.catalog import Catalog
from training.data.packed_log import PackedLog


def popularity_order(counts: NDArray[np.int64], ids: Sequence[str]) -> list[int]:
    """Indices of the items that occur at all, most popular first; a hash of the id breaks ties.

    counts (n,): interactions in what a model may be trained on. Those of the whole log would tell
    what is taken later.
    """
    hashes = np.array([hashlib.blake2b(item.encode(), digest_size=8).digest() for item in ids])
    order = np.lexsort((hashes, -counts))
    indices: list[int] = order[counts[order] > 0].tolist()
    return indices


def popular_rows(train: PackedLog, catalog: Catalog) -> list[int]:
    """The rows of the catalogue that occur in `train`, most popular first.

    train: what models are trained on, in rows of the catalogue; those above its N are left out.
    """
    size = len(catalog)
    counts = np.bincount(train.rows, minlength=size + 1)[1 : size + 1]
    return [index + 1 for index in popularity_order(counts, catalog.ids)]
