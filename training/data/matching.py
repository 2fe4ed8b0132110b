"""What a filter or a join leaves: little is reported with both counts, nothing is refused."""

import logging
from collections.abc import Collection, Iterable

from training.data.errors import UnmatchedError

_LITTLE = 0.5  # a share below this is reported
_SHOWN = 5

_log = logging.getLogger(__name__)


def check_matches(
    subject: object, matched: int, total: int, what: str, remedy: str, little: float = _LITTLE
) -> None:
    """Warn if less than a share of the total has matched. Raises UnmatchedError if nothing has.

    what: what was counted and what it should match, such as `items of the log are in the file`.
    """
    if matched < total and matched < little * total:
        sentence = f"{subject}: {matched:,} of {total:,} {what}; {remedy}"
        if not matched:
            raise UnmatchedError(sentence)
        _log.warning("%s", sentence)


def check_event_types(
    subject: object, wanted: Collection[str], found: Collection[str], total: int, what: str
) -> None:
    """Warn of each wanted event type that none of the records has."""
    for name in sorted(set(wanted) - set(found)):
        _log.warning(
            "%s: event type %r: none of %s %s has it; they are %s",
            *(subject, name, f"{total:,}", what, examples(sorted(found))),
        )


def require_event_types(
    subject: object,
    wanted: Collection[str],
    found: Collection[str],
    total: int,
    what: str,
    setting: str,
) -> None:
    """As check_event_types. Raises UnmatchedError if none of the records has a wanted event type.

    setting: the one that names them, which the sentence says to correct.
    """
    if wanted and not set(wanted) & set(found):
        raise UnmatchedError(
            f"{subject}: 0 of {total:,} {what} have an event type of {', '.join(wanted)}; they are "
            f"{examples(sorted(found))}; correct {setting}"
        )
    check_event_types(subject, wanted, found, total, what)


def warn(sentence: str) -> None:
    """Report something that a run can go on with."""
    _log.warning("%s", sentence)


def examples(names: Iterable[str]) -> str:
    """The first few, in words."""
    listed = [*names]
    return ", ".join(listed[:_SHOWN]) + (", ..." if len(listed) > _SHOWN else "") or "none"
