"""The body of a request: JSON, complete in time, within the limit, compressed or not."""

import asyncio
import re
import time
import zlib
from collections.abc import Mapping

from starlette.requests import Request
from starlette.types import Message

from service.errors import (
    BodyTooLargeError,
    BodyTooSlowError,
    ClientDisconnectedError,
    InvalidRequestError,
    Problem,
    UnsupportedEncodingError,
    UnsupportedTypeError,
)
from service.http.request_context import RequestContext
from service.http.schemas.common import BODY_LIMIT_BYTES

_BODY_TIMEOUT_S = 10.0
_JSON = b"application/json"
_JSON_TYPE = re.compile(
    rb"application/(?:[\w.+-]+\+)?json"
    rb'(?:\s*;\s*(?:charset="?(?:utf-?8|us-ascii)"?|(?!charset)[\w-]+="?[\w./:-]*"?))*\s*;?\s*',
    re.IGNORECASE,
)
_GZIP = (b"gzip", b"x-gzip")
_GZIP_FORMAT = 16 + zlib.MAX_WBITS
_MAX_SHOWN = 40


async def read_body(request: Request, context: RequestContext) -> bytes:
    """The whole body, decompressed.

    Raises UnsupportedTypeError, UnsupportedEncodingError, BodyTooLargeError, BodyTooSlowError,
    InvalidRequestError or ClientDisconnectedError, as soon as it is known.
    """
    _check_type(context.headers)
    encoding = context.headers.get(b"content-encoding", b"identity").strip().lower()
    if encoding not in (b"identity", *_GZIP):
        raise UnsupportedEncodingError(
            f"content-encoding: given {_shown(encoding)}; send the body as gzip, or uncompressed"
        )
    length = context.headers.get(b"content-length", b"0")
    if length.isdigit() and int(length) > BODY_LIMIT_BYTES:
        raise _too_large()
    body = await _receive(request, context)
    return _decompress(body) if encoding in _GZIP else body


def _check_type(headers: Mapping[bytes, bytes]) -> None:
    """Raises UnsupportedTypeError unless the body is said to be JSON.

    A page of another origin can send anything else, or nothing, without asking whether it may. A
    program may say nothing: unlike a browser, it sends no origin.
    """
    given = headers.get(b"content-type")
    if given == _JSON or (given is None and b"origin" not in headers):
        return
    if given is None or not _JSON_TYPE.fullmatch(given):
        shown = "nothing" if given is None else _shown(given)
        raise UnsupportedTypeError(
            f"content-type: given {shown}; send JSON in UTF-8, with the header "
            "Content-Type: application/json"
        )


def _shown(value: bytes) -> str:
    text = value.decode("latin-1")
    return repr(text[:_MAX_SHOWN]) + "..." * (len(text) > _MAX_SHOWN)


async def _receive(request: Request, context: RequestContext) -> bytes:
    body, more = _append(b"", await request.receive())
    if not more:
        return body
    try:
        async with asyncio.timeout(_BODY_TIMEOUT_S):
            while more:
                body, more = _append(body, await request.receive())
    except TimeoutError:
        raise BodyTooSlowError(
            f"body: not complete after {_BODY_TIMEOUT_S:g} s; send it faster"
        ) from None
    context.complete_at = time.perf_counter()
    return body


def _append(body: bytes, message: Message) -> tuple[bytes, bool]:
    """The body with the chunk of the message, and whether more chunks follow."""
    if message["type"] == "http.disconnect":
        raise ClientDisconnectedError("client: disconnected before its body was complete")
    body += message.get("body", b"")
    if len(body) > BODY_LIMIT_BYTES:
        raise _too_large()
    return body, message.get("more_body", False)


def _decompress(body: bytes) -> bytes:
    decompressor = zlib.decompressobj(_GZIP_FORMAT)
    try:
        content = decompressor.decompress(body, BODY_LIMIT_BYTES + 1)
    except zlib.error:
        problem = "not gzip, which its content-encoding says it is; compress it, or say nothing"
        raise InvalidRequestError([Problem("body", problem)]) from None
    if len(content) > BODY_LIMIT_BYTES:
        raise _too_large()
    if not decompressor.eof or decompressor.unused_data:
        what = "more than one gzip stream" if decompressor.eof else "an incomplete gzip stream"
        raise InvalidRequestError([Problem("body", f"{what}; send one, as a whole")])
    return content


def _too_large() -> BodyTooLargeError:
    return BodyTooLargeError(
        f"body: over {BODY_LIMIT_BYTES:,} bytes, the most that is allowed, also once decompressed; "
        "send less at once"
    )
