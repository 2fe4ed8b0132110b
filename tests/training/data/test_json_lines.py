"""Lines of JSON that cannot be used are located."""

from collections.abc import Callable
from pathlib import Path

import pytest

from training.data.errors import LogError
from training.data.readers import read_log

Write = Callable[..., Path]

GOOD = '{"reviewerID": "a", "asin": "b", "unixReviewTime": 1, "overall": 5}\n'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"reviewerID": "a", "asin"', "not JSON"),
        ("[1, 2]", "not a JSON object"),
        (
            '{"reviewerID": 7, "asin": "b", "unixReviewTime": 1}',
            "reviewerID is 7; it must be a str",
        ),
        (
            '{"reviewerID": "a", "asin": "b", "unixReviewTime": "1"}',
            "unixReviewTime is '1'; it must",
        ),
        ('{"reviewerID": "a", "unixReviewTime": 1}', "no item id"),
        ('{"reviewerID": "a", "asin": "b"}', "no timestamp"),
        ('{"reviewerID": "a", "asin": "", "unixReviewTime": 1}', "item id is empty"),
        (
            '{"reviewerID": "a", "asin": "b", "unixReviewTime": 1, "overall": NaN}',
            "weight nan; it must be finite",
        ),
    ],
)
def test_a_bad_line_is_located(write: Write, line: str, message: str) -> None:
    with pytest.raises(LogError, match=rf"line 4: {message}"):
        read_log(write(f"{GOOD}\n{GOOD}{line}\n{GOOD}", "x.json"))


def test_a_value_that_is_not_utf8_is_located(write: Write) -> None:
    content = GOOD.encode() + GOOD.encode().replace(b'"a"', b'"\xff"')
    with pytest.raises(LogError, match=r"line 2: user id b'\\xff' is not UTF-8"):
        read_log(write(content, "x.json"))
