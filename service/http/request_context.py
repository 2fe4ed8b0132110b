"""The context of a request: when it arrived, its id, selected headers, client and deadline."""

import itertools
import math
import re
import secrets
import time
from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any

from service.errors import InvalidRequestError, OverloadedError, Problem

_KEPT_HEADERS = frozenset(
    (
        *(b"x-request-id", b"x-deadline-ms", b"authorization", b"traceparent", b"origin"),
        *(b"content-type", b"content-encoding", b"content-length"),
    )
)
_VALID_REQUEST_ID = re.compile(rb"[\w.:/+=@-]{1,128}", re.ASCII)
_PROCESS_ID = secrets.token_hex(6).encode()
_REQUEST_NUMBERS = itertools.count(1)
_MAX_DEADLINE_DIGITS = 9
_UNKNOWN_CLIENT = "unknown"
_SCOPE_KEY = "request_context"


@dataclass(slots=True)
class RequestContext:
    """received_at, complete_at, deadline: on the clock of time.perf_counter.

    complete_at: when the body was complete, if that was after its head; the deadline counts from
    then. No deadline until one is set.
    stages: (name, start, end) of each stage of the request, or None if they are not recorded.
    variant: which release answered, while a canary runs.
    """

    received_at: float
    headers: dict[bytes, bytes]
    request_id: bytes
    client_address: str = _UNKNOWN_CLIENT
    complete_at: float | None = None
    deadline: float = math.inf
    stages: list[tuple[str, float, float]] | None = None
    variant: str | None = None

    def set_deadline(self, timeout_s: float) -> float:
        """Set and return the deadline: X-Deadline-Ms if it is shorter, else timeout_s.

        Raises InvalidRequestError if the header is not a number.
        """
        requested = self.headers.get(b"x-deadline-ms")
        if requested is not None:
            timeout_s = min(timeout_s, _seconds(requested))
        start = self.received_at if self.complete_at is None else self.complete_at
        self.deadline = start + timeout_s
        return self.deadline

    def log_fields(self, method: str, route: str) -> dict[str, str]:
        """The fields that may be logged: none of them can contain a user id or an item id."""
        fields = {"method": method, "route": route, "request_id": self.request_id.decode("ascii")}
        return fields if self.variant is None else {**fields, "variant": self.variant}

    def check_deadline(self) -> None:
        """Raises OverloadedError if the deadline has passed."""
        late_s = time.perf_counter() - self.deadline
        if late_s > 0:
            raise OverloadedError(
                f"deadline: missed by {late_s * 1e3:.0f} ms, so no response is sent; "
                "try again later"
            )


def add_request_context(scope: MutableMapping[str, Any]) -> RequestContext:
    """Create the context of an ASGI request and store it in the scope."""
    client = scope.get("client")
    context = create_request_context(scope["headers"], client[0] if client else _UNKNOWN_CLIENT)
    scope[_SCOPE_KEY] = context
    return context


def create_request_context(
    headers: Iterable[tuple[bytes, bytes]], client_address: str = _UNKNOWN_CLIENT
) -> RequestContext:
    """Keeps the client's X-Request-Id if it is valid, else generates an id."""
    kept = {name: value for name, value in headers if name in _KEPT_HEADERS}
    request_id = kept.get(b"x-request-id")
    if request_id is None or not _VALID_REQUEST_ID.fullmatch(request_id):
        request_id = b"%b-%x" % (_PROCESS_ID, next(_REQUEST_NUMBERS))
    return RequestContext(time.perf_counter(), kept, request_id, client_address)


def request_context_of(scope: MutableMapping[str, Any]) -> RequestContext:
    context: RequestContext = scope[_SCOPE_KEY]
    return context


def _seconds(milliseconds: bytes) -> float:
    is_number = milliseconds.isdigit() and len(milliseconds) <= _MAX_DEADLINE_DIGITS
    if not (is_number and int(milliseconds)):
        problem = "not a number of milliseconds from 1; leave it out, or send one"
        raise InvalidRequestError([Problem("X-Deadline-Ms", problem)])
    return int(milliseconds) / 1000
