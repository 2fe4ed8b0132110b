"""Short forms of the evidence on Redis's bad days, without what a busy machine can spoil."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

EVIDENCE = Path(__file__).parents[2] / "evidence"


def collected(script: str, *arguments: str) -> dict[str, Any]:
    ended = subprocess.run(
        [sys.executable, str(EVIDENCE / script), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"
    summary: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return summary


def test_no_fault_of_redis_is_an_error_of_ours() -> None:
    quick = ("--seconds", "0.1", "--rate", "100", "--pause-s", "0.1")
    lenient = ("--deadline-ms", "60000", "--slack-ms", "60000")
    summary = collected("redis_faults.py", *quick, *lenient, "--kinds", "alone")

    assert summary["faults"] == 21
    assert summary["server_errors"] == 0
    assert summary["wrong"] == []
    findings = summary["findings"]
    assert all(found["recovery_s"] is not None for found in findings.values())
    assert findings["refuse"]["degraded_share"] > 0.5


def test_no_call_that_is_given_up_answers_another() -> None:
    summary = collected("redis_cancel.py", "--calls", "600")

    assert summary["cancelled"] >= 600
    assert summary["foreign"] == 0
