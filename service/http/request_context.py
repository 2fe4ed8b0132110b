"""What is noted of a request as it comes in: when, under which id, with which key and deadline."""

import itertools
import math
import re
import secrets
import time
from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any

from service.errors import InvalidBodyError, OverloadedError, Problem

_NOTED = frozenset((b"x-request-id", b"x-deadline-ms", b"authorization", b"traceparent"))
_SANE_ID = re.compile(rb"[\w.:/+=@-]{1,128}", re.ASCII)
_PROCESS = secrets.token_hex(6)
_NUMBERS = itertools.count(1)
_DIGITS = 9


@dataclass(slots=True)
class RequestContext:
    """at, deadline: on the clock of time.perf_counter; no deadline until one is set.

    stages: (name, start, end) of what was done for the request, if somebody wants to know.
    """

    at: float
    headers: dict[bytes, bytes]
    request_id: bytes
    deadline: float = math.inf
    stages: list[tuple[str, float, float]] | None = None

    def answer_within(self, seconds: float) -> float:
        """Set the deadline, which the client may have wanted earlier, and return it.

        Raises InvalidBodyError for a wish that is no number.
        """
        wish = self.headers.get(b"x-deadline-ms")
        if wish is not None:
            seconds = min(seconds, _seconds(wish))
        self.deadline = self.at + seconds
        return self.deadline

    def check_deadline(self) -> None:
        """Raises OverloadedError once it is too late to answer."""
        late_s = time.perf_counter() - self.deadline
        if late_s > 0:
            raise OverloadedError(
                f"deadline: missed by {late_s * 1e3:.0f} ms, and nobody waits for the answer now; "
                "try again later"
            )


def arrived(headers: Iterable[tuple[bytes, bytes]]) -> RequestContext:
    noted = {name: value for name, value in headers if name in _NOTED}
    given = noted.get(b"x-request-id")
    if given is None or not _SANE_ID.fullmatch(given):
        given = b"%b-%x" % (_PROCESS.encode(), next(_NUMBERS))
    return RequestContext(time.perf_counter(), noted, given)


def request_context_of(scope: MutableMapping[str, Any]) -> RequestContext:
    arrival: RequestContext = scope["arrival"]
    return arrival


def _seconds(wish: bytes) -> float:
    if not (wish.isdigit() and len(wish) <= _DIGITS and int(wish)):
        problem = "not a number of milliseconds from 1; leave it out, or send one"
        raise InvalidBodyError([Problem("X-Deadline-Ms", problem)])
    return int(wish) / 1000
