"""Ids to integer codes, block by block."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from training.data.values import BadValueError, require_values, to_binary

MAX_ID_BYTES = 512

_MIN_PENDING = 1 << 22  # dictionary entries below which blocks are not worth unifying


class IdEncoder:
    """Encodes a column of ids, which comes in blocks, as codes into one dictionary.

    Each block has a dictionary of its own. These are unified whenever together they hold more than
    the unified one, so the work is linear and the memory is that of the codes and a few times the
    distinct ids.
    """

    def __init__(self) -> None:
        self._chunks: list[pa.DictionaryArray] = []
        self._pending = self._unified = 0

    def add(self, encoded: pa.DictionaryArray, mask: NDArray[np.bool_]) -> None:
        """Add the ids under the mask, from encode_ids."""
        self._chunks.append(encoded if mask.all() else encoded.filter(pa.array(mask)))
        self._pending += len(encoded.dictionary)
        if self._pending > max(self._unified, _MIN_PENDING):
            self._unify()

    def codes_and_ids(self) -> tuple[NDArray[np.int32], NDArray[np.object_]]:
        """Codes (n,), and the str they stand for."""
        unified = self._unify()
        ids = unified.dictionary.cast(pa.string()).to_numpy(zero_copy_only=False)
        return unified.indices.to_numpy(), ids

    def _unify(self) -> pa.DictionaryArray:
        chunks = pa.chunked_array(self._chunks).unify_dictionaries().chunks
        codes = pa.concat_arrays([chunk.indices for chunk in chunks])
        dictionary = chunks[0].dictionary
        unified = pa.DictionaryArray.from_arrays(codes, dictionary)
        self._chunks, self._pending, self._unified = [unified], 0, len(dictionary)
        return unified


def encode_ids(values: pa.Array, name: str) -> pa.DictionaryArray:
    """The ids as codes into a dictionary of binary. Raises BadValueError for the first bad id."""
    return _encode(require_values(values, name), name, 1)


def encode_event_types(values: pa.Array) -> pa.DictionaryArray:
    """As encode_ids, with an empty text where there is none."""
    return _encode(to_binary(values, "event").fill_null(b""), "event", 0)


def _encode(values: pa.Array, name: str, min_bytes: int) -> pa.DictionaryArray:
    encoded = to_binary(values, name).dictionary_encode()
    dictionary = encoded.dictionary
    try:
        dictionary.cast(pa.string())
        sizes = pc.min_max(pc.binary_length(dictionary)).as_py()
        valid = not len(dictionary) or (sizes["min"] >= min_bytes and sizes["max"] <= MAX_ID_BYTES)
    except pa.ArrowInvalid:
        valid = False
    if valid:
        return encoded
    problems = [_problem(value, min_bytes) for value in dictionary.to_pylist()]
    invalid = np.array([problem is not None for problem in problems])
    codes = encoded.indices.to_numpy()
    allowed = f"{min_bytes} to {MAX_ID_BYTES} bytes of UTF-8"
    raise BadValueError.where(
        invalid[codes], lambda r: f"{name} {problems[codes[r]]}; it must be {allowed}"
    )


def _problem(value: bytes, min_bytes: int) -> str | None:
    if len(value) < min_bytes:
        return "is empty"
    if len(value) > MAX_ID_BYTES:
        return f"is {len(value):,} bytes long"
    try:
        value.decode()
    except UnicodeDecodeError:
        return f"{value!r} is not UTF-8"
    return None
