"""Logs: one JSON object per line on stderr. No line contains a user id or an item id."""

import json
import logging
import traceback
from datetime import UTC, datetime
from typing import Any

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
        entry |= {key: value for key, value in vars(record).items() if key not in _STANDARD_FIELDS}
        if record.exc_info and record.exc_info[0]:
            # Without the exception's message: it may quote what a client sent.
            entry["error"] = record.exc_info[0].__name__
            entry["at"] = [
                f"{frame.filename}:{frame.lineno} {frame.name}"
                for frame in traceback.extract_tb(record.exc_info[2])
            ]
        return json.dumps(entry, default=str)


def configure_logs(level: str) -> None:
    """Write all logs of this process to stderr, one line per event."""
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # service.serving.server logs start and end itself.
    library_level = max(logging.WARNING, logging.getLevelName(level.upper()))
    for library in ("uvicorn", "faiss"):
        logging.getLogger(library).setLevel(library_level)
