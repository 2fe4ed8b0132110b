"""The titles of a release's items, which the page shows and searches; the server reads none."""

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from index.release.errors import as_release_error
from index.release.manifest import CATALOG

_COUNTED_BYTES = 1 << 18  # of the most popular items, to guess which word is the rarest
_COLUMNS = ["title", "category", "item_id"]


class Titles:
    """Titles and categories by row, from 1, as in the catalogue.

    categories: each with its number of items, the largest first.
    """

    def __init__(self, table: pa.Table) -> None:
        """table: title, category and item_id of each item, strings or null."""
        title, category, item_id = (table[name].cast(pa.large_string()) for name in _COLUMNS)
        self._titles = title.combine_chunks()
        self._categories = category.combine_chunks()
        counted = pc.value_counts(self._categories.drop_null()).to_pylist()
        self.categories: list[tuple[str, int]] = sorted(
            ((entry["values"], entry["counts"]) for entry in counted), key=lambda pair: -pair[1]
        )
        shown = pc.coalesce(self._titles, item_id.combine_chunks())
        # Each item on a line that starts with a space: so beginnings of lines and of words can be
        # searched like any text, and no word goes from one item into the next.
        start, space = pa.scalar("\n ", pa.large_string()), pa.scalar(" ", pa.large_string())
        named = pc.binary_join_element_wise(
            shown, pc.fill_null(self._categories, ""), space, null_handling="skip"
        )
        lines = pc.utf8_lower(pc.binary_join_element_wise(start, named, pa.scalar("", named.type)))
        _, offsets, text = lines.buffers()
        self._text = text.to_pybytes()
        self._offsets = array("q", offsets.to_pybytes()[: 8 * (len(lines) + 1)])

    @classmethod
    def read(cls, folder: Path) -> "Titles":
        """Of the release in the folder. Raises ReleaseError if they cannot be read."""
        with as_release_error(f"{folder.name}: the titles of {CATALOG} cannot be read"):
            return cls(pq.read_table(folder / CATALOG, columns=_COLUMNS))

    def of(self, rows: Sequence[int]) -> list[tuple[str | None, str | None]]:
        """Title and category of each row in 1..N."""
        positions = pa.array([row - 1 for row in rows], pa.int64())
        titles, categories = self._titles.take(positions), self._categories.take(positions)
        return list(zip(titles.to_pylist(), categories.to_pylist(), strict=True))

    def search(self, text: str, limit: int) -> list[int]:
        """At most `limit` rows whose title and category contain each word, in any case.

        First those that start with the text, then those with words that start so, then the others;
        the most popular first.
        """
        words = text.lower().encode("utf-8", "replace").split()
        if not words:
            return []
        found: dict[int, None] = {}
        starts = [b" " + word for word in words]
        for parts in ([b"\n" + b"".join(starts)], starts, words):
            found |= dict.fromkeys(islice(self._with_each(parts), limit))
            if len(found) >= limit:
                break
        return list(found)[:limit]

    def _with_each(self, parts: list[bytes]) -> Iterator[int]:
        """The rows whose line has each of the parts, in order."""
        rarest = min(parts, key=lambda p: (self._text.count(p, 0, _COUNTED_BYTES), -len(p)))
        position = self._text.find(rarest)
        while position >= 0:
            row = bisect_right(self._offsets, position)
            end = self._offsets[row]
            line = self._text[self._offsets[row - 1] : end]
            if all(part in line for part in parts):
                yield row
            position = self._text.find(rarest, end)
