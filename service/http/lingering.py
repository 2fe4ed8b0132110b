"""Closing a connection whose client is still sending.

To close at once would reset the connection, and the client would lose the response that says why
its request was refused. So the server ends its side, drops what still arrives, and closes once the
client has closed, or after a limit of time or bytes.
"""

import asyncio
from collections.abc import Callable
from typing import Any

_LINGER_S = 5.0
_LINGER_BYTES = 64 * 1024 * 1024


class LingeringTransport:
    """A transport whose `close` lingers while the request is incomplete."""

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        is_incomplete: Callable[[], bool],
    ) -> None:
        """is_incomplete: whether the client has not sent all of its request."""
        self._transport = transport
        self._loop = loop
        self._is_incomplete = is_incomplete
        self._timer: asyncio.TimerHandle | None = None
        self._dropped_bytes = 0
        self.lingers = False
        self.write = transport.write

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        return self.lingers or self._transport.is_closing()

    def close(self) -> None:
        if self.is_closing():
            return
        if self._is_incomplete():
            self.lingers = True
            self._transport.resume_reading()
            self._transport.write_eof()
        else:
            self._transport.close()
        # Also for a client that does not read what it was sent.
        if self.lingers or self._transport.get_write_buffer_size():
            self._timer = self._loop.call_later(_LINGER_S, self._transport.abort)

    def drop(self, data: bytes) -> None:
        """Count what arrived while lingering."""
        self._dropped_bytes += len(data)
        if self._dropped_bytes > _LINGER_BYTES:
            self._transport.abort()

    def stop(self) -> None:
        """Close without lingering."""
        self._transport.close()

    def closed(self) -> None:
        """The connection is lost."""
        if self._timer is not None:
            self._timer.cancel()
