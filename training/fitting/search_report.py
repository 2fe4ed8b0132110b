"""What a search tried: a table for people, and records for programs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from tabulate import tabulate

_COLUMNS = ("candidate", "epochs", "seconds", "distinct share", "result")


@dataclass(frozen=True)
class Trial:
    """One candidate. epochs, seconds: of training, in the search. value: its best of the metric on
    validation, None if it was not trained. distinct_share: None also if K is 1."""

    candidate: str
    epochs: int
    seconds: float
    metric: str
    value: float | None
    distinct_share: float | None
    result: str


def describe(trial: Trial) -> str:
    """A line for the log."""
    epochs = f"{trial.epochs} epoch{'s' if trial.epochs != 1 else ''}"
    parts = [epochs, f"{trial.seconds:g} s"]
    if trial.value is not None:
        parts.append(f"{trial.metric} {trial.value:.4f}")
    if trial.distinct_share is not None:
        parts.append(f"distinct share {trial.distinct_share:.2f}")
    if trial.result != "compared":
        parts.append(trial.result)
    return f"{trial.candidate}: {', '.join(parts)}"


def table(trials: Sequence[Trial]) -> str:
    """In Markdown."""
    rows = [
        (
            trial.candidate,
            trial.epochs,
            f"{trial.seconds:.1f}",
            _number(trial.value, 4),
            _number(trial.distinct_share, 2),
            trial.result,
        )
        for trial in trials
    ]
    headers = (*_COLUMNS[:3], trials[0].metric, *_COLUMNS[3:])
    align = ("left", "right", "right", "right", "right", "left")
    return tabulate(rows, headers, tablefmt="pipe", colalign=align, disable_numparse=True)


def reports(trials: Sequence[Trial]) -> Mapping[str, str]:
    """The files of a draft, by name."""
    records = [asdict(trial) for trial in trials]
    return {
        "search.md": f"# What the search tried\n\n{table(trials)}\n",
        "search.json": json.dumps(records, indent=2) + "\n",
    }


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
