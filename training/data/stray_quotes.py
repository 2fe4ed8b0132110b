"""Quotes that were not meant as such: left alone, they make one field of many lines of a log.

A field that begins with a quote goes on to the next single quote, over line ends. So one quote too
many swallows all lines to the next one, and nothing is malformed. Here it is told from text that
has lines: text does not have lines that are records, and it ends with its field.
"""

import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import NamedTuple

from training.data.columns import BLOCK_BYTES

NumberedLine = tuple[int, str]
# Whether the fields of a line, split without regard to quotes, are those of a record; if so, the
# position of the last one that shows it.
RecordTest = Callable[[Sequence[str]], int | None]

_QUOTED = r'"(?:[^"]|"")*+'  # without the closing quote
_CLOSING = re.compile(r'((?:[^"]|"")*+)"(.*)', re.DOTALL)


class _Patterns(NamedTuple):
    closed: re.Pattern[str]  # whole fields
    opened: re.Pattern[str]  # whole fields, and the start of a quoted one


@cache
def _patterns(separator: str) -> _Patterns:
    """As pyarrow reads: a quote inside a field is a character; so is what follows a closing one."""
    end = f"[^{re.escape(separator)}]*+"
    field = f'(?:{_QUOTED}"{end}|(?!"){end})'
    before = f"(?:{field}{re.escape(separator)})*+"
    return _Patterns(re.compile(f"{before}{field}"), re.compile(f"({before}){_QUOTED}"))


def stray_quotes(
    lines: Iterator[NumberedLine], separator: str, is_record: RecordTest
) -> Iterator[tuple[int, str]]:
    """The number of each line with a stray quote, and what is wrong with it.

    After such a line, the next one is looked at: what the quote has swallowed is not lost.
    """
    closed, waiting = _patterns(separator).closed, deque[NumberedLine]()
    source = _from(waiting, lines)
    for number, line in source:
        if '"' not in line or closed.fullmatch(_body(line)):
            continue
        following: list[NumberedLine] = []
        problem = _problem(line, source, following, separator, is_record)
        if problem is not None:
            yield number, problem
            waiting.extendleft(reversed(following))


def _from(waiting: deque[NumberedLine], lines: Iterator[NumberedLine]) -> Iterator[NumberedLine]:
    while True:
        if waiting:
            yield waiting.popleft()
        elif (line := next(lines, None)) is not None:
            yield line
        else:
            return


def _problem(
    first: str,
    lines: Iterator[NumberedLine],
    following: list[NumberedLine],
    separator: str,
    is_record: RecordTest,
) -> str | None:
    """What is wrong with the quoted field that the first line opens; None for text with lines.

    following: is given the lines of the field that come after the first.
    """
    patterns, size = _patterns(separator), 0
    opened = patterns.opened.fullmatch(_body(first))
    position = opened[1].count(separator) if opened else 0
    shown = is_record(_body(first).split(separator))
    if shown is not None and shown >= position:
        return "a quote opens a field that runs over the rest of the record; remove the quote"
    for number, line in lines:
        following.append((number, line))
        size += len(line)
        body = _body(line)
        closing = _CLOSING.fullmatch(body)
        inside = body if closing is None else closing[1]
        shown = is_record(body.split(separator))
        if shown is not None and shown < len(inside.split(separator)):
            return f"a quote opens a field that runs over the record on line {number:,}; remove it"
        if size > BLOCK_BYTES:
            return f"a quote opens a field of more than {BLOCK_BYTES:,} bytes; remove the quote"
        if closing is None:
            continue
        rest = closing[2]
        if rest and not rest.startswith(separator):
            return (
                f"a quote opens a field that ends inside of text on line {number:,}; remove the "
                "quote, or double those that are part of the text"
            )
        if patterns.closed.fullmatch(rest[1:]):
            return None
    return "a quote opens a field that is never closed; remove the quote, or complete the file"


def _body(line: str) -> str:
    return line.rstrip("\r\n")
