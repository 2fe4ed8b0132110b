"""What identifies a training run: its settings and the content of its data, not a file name.

A checkpoint may be continued, and a stored result reused, only by a run of the same fingerprint.
"""

import hashlib
from collections.abc import Iterable

from pydantic import BaseModel

from index.retrieval.catalog import Catalog
from training.data.packed_log import PackedLog

# To be raised with a change of the code after which the same run has other results.
_COMPUTATION = 2


def fingerprint(config: BaseModel, catalog: Catalog, log: PackedLog) -> str:
    """Hash of settings, items and what is known of them, and each user's items, times, weights."""
    sha256 = hashlib.sha256(f"{_COMPUTATION} {config.model_dump_json()}".encode())
    for texts in (catalog.ids, catalog.titles, catalog.categories, log.user_ids):
        sha256.update(_hash_of(texts))
    for name, column in catalog.attributes.items():
        values = (column[position] for position in range(len(column)))
        sha256.update(_hash_of([name]))
        sha256.update(_hash_of(None if value is None else repr(value) for value in values))
    for numbers in (log.offsets, log.rows, log.times):
        sha256.update(hashlib.sha256(numbers.data).digest())
    if log.weights is not None:
        sha256.update(hashlib.sha256(log.weights.data).digest())
    return sha256.hexdigest()[:16]


def _hash_of(texts: Iterable[str | None]) -> bytes:
    """Of a column; each text with its length, so that no two columns give the same bytes."""
    sha256 = hashlib.sha256()
    for text in texts:
        encoded = b"" if text is None else text.encode()
        sha256.update(b"%d " % (-1 if text is None else len(encoded)) + encoded)
    return sha256.digest()
