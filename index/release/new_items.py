"""Items that a release does not know: vectors, and what the item file says of them.

Training has made the vectors from the items' words: see training.fitting.content_model. They are a
safetensors file with the ids as metadata; the details are a catalogue and attributes of their own,
which releases of earlier versions lack.
"""

import json
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from index.release.attributes import read_attributes, write_attributes
from index.release.catalog import read_catalog, write_catalog
from index.release.manifest import (
    NEW_ITEM_ATTRIBUTES,
    NEW_ITEM_DETAILS,
    NEW_ITEMS,
    FileDigest,
    digest,
)
from index.retrieval.attributes import columns_of
from index.retrieval.catalog import PADDING, Catalog, details_of
from index.retrieval.delta import Delta
from index.retrieval.details import Details


@dataclass(frozen=True)
class NewItems:
    """delta: without details. catalog: the details of its items; None if there are none."""

    delta: Delta
    catalog: Catalog | None = None

    def details_of(self, item_ids: Sequence[str]) -> dict[str, Details]:
        """What the item file says of those of the items that are among these."""
        if self.catalog is None:
            return {}
        rows = zip(item_ids, self.catalog.rows(item_ids), strict=True)
        return {item: details_of(self.catalog, row) for item, row in rows if row != PADDING}


def write_new_items(folder: Path, items: Delta) -> Mapping[str, FileDigest]:
    """Write them into the folder of a draft, and return the digests for the manifest.

    Raises OSError, and leaves no file of vectors, if the disk is full.
    """
    path = folder / NEW_ITEMS
    try:
        save_file({"vectors": items.vectors}, path, {"ids": json.dumps([*items.ids])})
    except SafetensorError as error:
        path.unlink(missing_ok=True)
        raise OSError(f"{path.name}: {error}; free space on the disk, then try again") from error
    names, catalog = [NEW_ITEMS, NEW_ITEM_DETAILS], _catalog_of(items)
    write_catalog(folder / NEW_ITEM_DETAILS, catalog)
    if catalog.attributes:
        write_attributes(folder / NEW_ITEM_ATTRIBUTES, catalog.attributes)
        names.append(NEW_ITEM_ATTRIBUTES)
    return {name: digest(folder / name) for name in names}


def _catalog_of(items: Delta) -> Catalog:
    details = [items.details_of(item_id) for item_id in items.ids]
    others = [[*(each.categories or ())[1:]] for each in details]
    return Catalog(
        ids=items.ids,
        popularity=np.zeros(len(items), np.int64),
        categories=items.first_categories,
        titles=[each.title for each in details],
        other_categories=others if any(others) else (),
        attributes=columns_of([each.attributes for each in details]),
    )


def read_new_items(folder: Path, files: Container[str], dim: int) -> NewItems:
    """files: names of those that the release has. dim: of its vectors.

    Raises ValueError if they do not fit, or SafetensorError.
    """
    with safe_open(folder / NEW_ITEMS, "numpy") as file:
        ids = json.loads((file.metadata() or {})["ids"])
        vectors = file.get_tensor("vectors")
    if vectors.shape != (len(ids), dim) or vectors.dtype != np.float32:
        raise ValueError(f"{vectors.dtype} {vectors.shape}, not float32 {(len(ids), dim)}")
    if not np.isfinite(vectors).all():
        raise ValueError("values that are not finite")
    if NEW_ITEM_DETAILS not in files:
        return NewItems(Delta(ids, vectors))
    catalog = read_catalog(folder / NEW_ITEM_DETAILS, with_titles=False)
    if [*catalog.ids] != ids:
        raise ValueError(f"{NEW_ITEM_DETAILS} is of other items")
    if NEW_ITEM_ATTRIBUTES in files:
        catalog = replace(catalog, attributes=read_attributes(folder / NEW_ITEM_ATTRIBUTES))
    return NewItems(Delta(catalog.ids, vectors), catalog)
