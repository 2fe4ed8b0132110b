"""The last nightly runs, from the reports that they leave beside the releases."""

import json
from pathlib import Path
from typing import Any

NIGHTS = "nightly"  # the folder of the runs, and the file of each: training writes them
REPORT = "report.json"

_MOST = 14
_LIMIT_BYTES = 1 << 22
_METRICS = ("recall@50", "ndcg@50")
_MODELS = ("new", "live", "popular", "recent")
_FIELDS = ("night", "outcome", "sentence", "live", "serves", "begun", "seconds", "warnings")


def read_nights(root: Path) -> list[dict[str, Any]]:
    """What the page shows of each run, the newest first; reports that cannot be read are left out.

    night, outcome, sentence, live, serves, begun (Unix seconds), seconds by step, warnings; metrics
    by model on the held-out day, of `users`, where the run came to a comparison.
    """
    reports = [_read(path) for path in (root / NIGHTS).glob(f"[!.]*/{REPORT}")]
    nights = [_shown(report) for report in reports if report is not None]
    return sorted(nights, key=lambda night: night["begun"], reverse=True)[:_MOST]


def _read(path: Path) -> dict[str, Any] | None:
    try:
        if path.stat().st_size > _LIMIT_BYTES:
            return None
        report = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    is_report = isinstance(report, dict) and isinstance(report.get("begun"), int | float)
    return report if is_report else None


def _shown(report: dict[str, Any]) -> dict[str, Any]:
    steps = report.get("steps")
    judged = steps.get("judge") if isinstance(steps, dict) else None
    judged = judged if isinstance(judged, dict) else {}
    metrics = {
        model: {name: judged[model][name] for name in _METRICS if name in judged[model]}
        for model in _MODELS
        if isinstance(judged.get(model), dict) and judged[model]
    }
    shown = {name: report[name] for name in _FIELDS if name in report}
    return {**shown, "metrics": metrics, "users": judged.get("users")}
