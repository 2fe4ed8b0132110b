"""How a nightly run ended, as one sentence, as an exit code and as JSON."""

import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from index.release.errors import ReleaseError
from training.config import ConfigError
from training.data.errors import LogError
from training.nightly.config import OutcomeName

EXIT_CODES: Mapping[OutcomeName, int] = {
    "published": 0,
    "failed": 1,
    "refused": 3,  # 2 is for a command line that cannot be parsed
    "nothing-new": 4,
    "running": 5,
}


class RejectedError(Exception):
    """The model that the run made is not fit to be served."""


class NothingNewError(Exception):
    """Too few events are new to the live release to train and compare another one."""


class AlreadyRunningError(Exception):
    """Another nightly run works in this root."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended: a name, one sentence, and details for programs.

    night: id of the run. live: the release that was live when it began.
    """

    outcome: OutcomeName
    sentence: str
    night: str | None = None
    release: str | None = None
    live: str | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.outcome]

    def to_json(self) -> dict[str, Any]:
        fields = asdict(self)
        details: dict[str, Any] = fields.pop("details")
        return fields | details


def error_sentence(error: Exception) -> str:
    """The message of an expected error. Any other error is printed with its traceback, and its type
    is added to the message."""
    if isinstance(error, ConfigError | LogError | ReleaseError | OSError):
        return str(error)
    traceback.print_exception(error)
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
