"""Ids are opaque, and bad ones are located."""

from collections.abc import Callable
from pathlib import Path

import pytest

from training.data.errors import LogError
from training.data.readers import read_log

Write = Callable[..., Path]


def test_ids_are_opaque(write: Write) -> None:
    path = write("user_id,item_id,timestamp\n01,1e3,1\n1,1000,1\n 1,NULL,1\nñ,nan,1\n")
    log = read_log(path)
    assert list(log.user_ids) == [" 1", "01", "1", "ñ"]
    assert list(log.item_ids) == ["1000", "1e3", "NULL", "nan"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (b"", "is empty"),
        (b"x" * 513, "is 513 bytes long"),
        (b"y" * 10_240, "is 10,240 bytes long"),
        (b"caf\xe9", r"b'caf\\xe9' is not UTF-8"),
    ],
)
@pytest.mark.parametrize("column", ["user", "item"])
def test_bad_ids_are_rejected(write: Write, given: bytes, message: str, column: str) -> None:
    bad = given + b",x,1\n" if column == "user" else b"ann," + given + b",1\n"
    path = write(b"user_id,item_id,timestamp\nann,x,1\n" + bad + b"bob,x,1\n")
    with pytest.raises(
        LogError, match=f"line 3: {column} id {message}; it must be 1 to 512 bytes of UTF-8"
    ):
        read_log(path)


def test_an_id_may_have_512_bytes(write: Write) -> None:
    path = write(f"user_id,item_id,timestamp\n{'é' * 256},x,1\n")
    assert list(read_log(path).user_ids) == ["é" * 256]
