"""Logs: one JSON object per line on stderr. No line contains a user id or an item id.

A log that nobody reads stops nothing: lines are dropped then, and counted.
"""

import json
import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from service.telemetry.output import LineWriter

_STDERR = 2
_DRAIN_S = 1.0  # at the end of the process

# Whose work the current task or thread does, in a process that serves several.
_TENANT: ContextVar[str | None] = ContextVar("tenant", default=None)

_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {
    "message",
    "asctime",
    "color_message",
}


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
            "event": record.getMessage(),
        }
        if (tenant := _TENANT.get()) is not None:
            entry["tenant"] = tenant
        entry |= {key: value for key, value in vars(record).items() if key not in _STANDARD_FIELDS}
        if record.exc_info and record.exc_info[0]:
            # Without the exception's message: it may quote what a client sent.
            entry["error"] = record.exc_info[0].__name__
            entry["at"] = [
                f"{frame.filename}:{frame.lineno} {frame.name}"
                for frame in traceback.extract_tb(record.exc_info[2])
            ]
        return json.dumps(entry, default=str)


@contextmanager
def logged_as(tenant: str | None) -> Iterator[None]:
    """Each line names the tenant, also those of tasks that are created inside."""
    token = _TENANT.set(tenant)
    try:
        yield
    finally:
        _TENANT.reset(token)


class _Handler(logging.StreamHandler[LineWriter]):
    def close(self) -> None:
        self.stream.drain(_DRAIN_S)
        super().close()


def configure_logs(level: str) -> None:
    """Write all logs of this process to stderr, one line per event, without ever waiting for it."""
    formatter = _JsonFormatter()

    def notice(lines: int) -> str:
        record = logging.makeLogRecord(
            {"name": __name__, "levelno": logging.WARNING, "levelname": "WARNING"}
            | {"msg": "log lines dropped", "lines": lines}
        )
        return formatter.format(record) + "\n"

    handler = _Handler(LineWriter(_STDERR, notice))
    handler.setFormatter(formatter)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # service.serving.server logs start and end itself.
    library_level = max(logging.WARNING, logging.getLevelName(level.upper()))
    for library in ("uvicorn", "faiss"):
        logging.getLogger(library).setLevel(library_level)
