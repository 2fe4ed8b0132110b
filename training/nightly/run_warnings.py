"""The warnings of a run, which go to its messages, its outcome and its report."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from training.nightly.notifications import MessageCallback
from training.nightly.outcome import Outcome

_LOGGER = "training"
WARNINGS = "warnings"


class _Collector(logging.Handler):
    def __init__(self, on_message: MessageCallback) -> None:
        super().__init__(logging.WARNING)
        self.sentences: list[str] = []
        self._on_message = on_message

    def emit(self, record: logging.LogRecord) -> None:
        sentence = record.getMessage()
        if sentence not in self.sentences:
            self.sentences.append(sentence)
            self._on_message(f"warning: {sentence}")


@contextmanager
def collected_warnings(on_message: MessageCallback) -> Iterator[list[str]]:
    """The warnings that the block logs, each once."""
    collector = _Collector(on_message)
    logger = logging.getLogger(_LOGGER)
    logger.addHandler(collector)
    try:
        yield collector.sentences
    finally:
        logger.removeHandler(collector)


def with_warnings(outcome: Outcome, warnings: list[str]) -> Outcome:
    unique = [*dict.fromkeys(warnings)]
    if not unique:
        return outcome
    return replace(outcome, details={**outcome.details, WARNINGS: unique})
