"""A whole HTTP response as bytes, for what is answered before or beside the framework."""

from collections.abc import Iterable, Sequence
from http import HTTPStatus

import orjson

from service.errors import ServiceError, to_response

_START = {status.value: f"HTTP/1.1 {status} {status.phrase}\r\n".encode() for status in HTTPStatus}


def raw_response(
    status: int,
    server_headers: Sequence[tuple[bytes, bytes]],
    headers: Iterable[tuple[str, str]],
    body: bytes,
) -> bytes:
    """A response with a JSON body. server_headers: those of every response."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
    return b"%b%b%bcontent-type: application/json\r\ncontent-length: %d\r\n%b%b" % (
        _START[status],
        b"".join([b"%b: %b\r\n" % header for header in server_headers]),
        lines.encode("latin-1"),
        len(body),
        b"x-content-type-options: nosniff\r\n\r\n",
        body,
    )


def response_to(error: ServiceError, further_headers: Iterable[tuple[str, str]] = ()) -> bytes:
    """The whole HTTP response to the error."""
    response = to_response(error)
    headers = {**response.headers, **dict(further_headers)}
    return raw_response(response.status, (), headers.items(), orjson.dumps(response.body))
