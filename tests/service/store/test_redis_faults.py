"""Short runs of the evidence on faults of Redis, without the bounds that a busy machine breaks."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

EVIDENCE = Path(__file__).parents[2] / "evidence"


def run_evidence(script: str, *arguments: str) -> dict[str, Any]:
    completed = subprocess.run(
        [sys.executable, str(EVIDENCE / script), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, f"{completed.stdout}\n{completed.stderr}"
    summary: dict[str, Any] = json.loads(completed.stdout.splitlines()[-1])
    return summary


def test_no_fault_of_redis_is_an_error_of_the_service() -> None:
    quick = ("--seconds", "0.1", "--rate", "100", "--pause-s", "0.1")
    lenient = ("--deadline-ms", "60000", "--slack-ms", "60000")
    summary = run_evidence("redis_faults.py", *quick, *lenient, "--kinds", "standalone")

    assert summary["faults"] == 21
    assert summary["server_errors"] == 0
    assert summary["wrong"] == []
    findings = summary["findings"]
    assert all(found["recovery_s"] is not None for found in findings.values())
    assert findings["refuse"]["degraded_share"] > 0.5


def test_no_cancelled_call_answers_another() -> None:
    summary = run_evidence("redis_cancel.py", "--calls", "600")

    assert summary["cancelled"] >= 600
    assert summary["foreign"] == 0
