"""Fuzzing of the HTTP API: requests generated from the OpenAPI document, and bad inputs.

    python tests/evidence/fuzz.py [--count N] [--seed S]

Schemathesis generates valid and invalid requests for every operation, and checks each response
against the document: its status, headers and body, whether a valid request was rejected or an
invalid one accepted, and whether a key was required. Between its rounds the handwritten bad inputs
are sent; each has one expected status. No response may be 5xx, except a 503 that says why; none may
take longer than half a minute; and the server's memory must stay flat. The last line is one JSON
object; the exit status is 1 if there was any complaint.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import requests
import schemathesis
from bad_inputs import BAD_INPUTS, BadRequest
from drift import Drift
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from releases import point, write_release
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.core.failures import FailureGroup
from server import Server, serving

from service.auth.api_keys import ROLES, key_line, new_key
from service.http.schemas.common import ErrorBody

TIMEOUT_S = 30.0
REQUESTS_PER_ROUND = 50  # for each operation and mode
EXPECTED_503_CODES = {"not_ready", "overloaded", "history_unavailable"}
# Rejections that a JSON schema cannot express: the limit of an id is in bytes, 5.0 is not an
# integer, a time before 1970 or in a leap second is none of an event, a body that is too long is
# rejected before it is parsed, and some fields need others: minimums are in sum at most k, and
# kinds of events belong to a user.
BEYOND_SCHEMAS = (
    *("bytes in UTF-8", "valid integer; given", '"code":"body_too_large"'),
    *("timestamp: Input should be greater than or equal to 0; given -", "ISO 8601 such as"),
    *("items in sum; at most k", "kinds and days are those of stored events"),
)
# The error of an invalid request in a batch is in its place among the answers.
BATCH_ERRORS = ("/recommend/batch", "Schema-violating request accepted")
MAX_GROWTH_MIB = 5.0  # in 10,000 requests


@dataclass
class Report:
    """The statuses of the responses, and how often there was each complaint."""

    statuses: Counter[int] = field(default_factory=Counter)
    complaints: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0

    def record(self, status: int, body: bytes, seconds: float, request: str) -> None:
        self.statuses[status] += 1
        self.slowest_s = max(self.slowest_s, seconds)
        if status >= 500 and not (status == 503 and code_of(body) in EXPECTED_503_CODES):
            self.complain(f"{request}: {status} {body[:200]!r}")

    def complain(self, text: str) -> None:
        if text not in self.complaints:
            print(text, file=sys.stderr)
        self.complaints[text] += 1


def code_of(body: bytes) -> str | None:
    try:
        return ErrorBody.model_validate_json(body).error.code
    except ValueError:
        return None


class Fuzz:
    def __init__(self, server: Server, key: str) -> None:
        self._headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        self._session = requests.Session()
        self._client = httpx.Client(base_url=server.url, timeout=TIMEOUT_S)
        config = schemathesis.Config.from_dict(
            {"auth": {"openapi": {"HTTPBearer": {"bearer": key}}}}
        )
        schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json", config=config)
        self._generators: list[tuple[APIOperation, GenerationMode]] = [
            (operation.ok(), mode)
            for operation in schema.get_all_operations()
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
        ]
        self.report = Report()

    @property
    def sent(self) -> int:
        return self.report.statuses.total()

    def run_round(self, round_seed: int, count: int) -> None:
        """Send `count` requests for each operation and mode, and the bad inputs."""
        for operation, mode in list(self._generators):
            try:
                self._generate(operation, mode, round_seed, count)
            except Unsatisfiable:  # no request for it can be invalid
                self._generators.remove((operation, mode))
        for bad in BAD_INPUTS:
            self._send(bad)

    def _generate(
        self, operation: APIOperation, mode: GenerationMode, round_seed: int, count: int
    ) -> None:
        @seed(round_seed)
        @settings(
            max_examples=count,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def send(case: Case) -> None:
            self._call(case, f"{operation.label}, {mode.value}")

        send()

    def _call(self, case: Case, request: str) -> None:
        try:
            response = case.call(session=self._session, timeout=TIMEOUT_S)
        except requests.RequestException as error:
            self.report.statuses[0] += 1
            self.report.complain(f"{request}: no response ({type(error).__name__})")
            return
        self.report.record(response.status_code, response.content, response.elapsed, request)
        if response.status_code >= 500:
            return
        try:
            case.validate_response(response)
        except FailureGroup as failures:
            for failure in failures.exceptions:
                complaint = f"{failure.title}: {failure} {response.text}"
                beyond_schema = any(text in complaint for text in BEYOND_SCHEMAS)
                if not beyond_schema and (case.path, failure.title) != BATCH_ERRORS:
                    self.report.complain(f"{request}: {' '.join(complaint.split())[:400]}")

    def _send(self, bad: BadRequest) -> None:
        request = f"{bad.method} {bad.path[:60]} {bad.headers or (bad.body or b'')[:60]!r}"
        headers = {**self._headers, **bad.headers}
        encoded = {
            name: value.encode("latin-1") for name, value in headers.items() if value is not None
        }
        start = time.perf_counter()
        try:
            response = self._client.request(bad.method, bad.path, content=bad.body, headers=encoded)
        except httpx.TransportError as error:
            self.report.statuses[0] += 1
            self.report.complain(f"{request}: no response ({type(error).__name__})")
            return
        seconds = time.perf_counter() - start
        self.report.record(response.status_code, response.content, seconds, request)
        if response.status_code != bad.status:
            self.report.complain(f"{request}: {response.status_code}, not {bad.status}")
        elif code_of(response.content) is None:
            self.report.complain(f"{request}: not the common error body")


def measure(root: Path, count: int, first_seed: int) -> dict[str, Any]:
    write_release(root, "fuzzed")
    point(root, "fuzzed")
    key, keys_file = new_key(), root / "keys"
    keys_file.write_text(key_line(key, ROLES) + "\n")
    start, round_seed = time.perf_counter(), first_seed
    with serving(root, keys_file=keys_file) as server:
        fuzz, drift = Fuzz(server, key), Drift(server)
        while fuzz.sent < count:
            fuzz.run_round(round_seed, min(REQUESTS_PER_ROUND, max(1, count // 100)))
            drift.sample(fuzz.sent)
            round_seed += 1
            print(f"{fuzz.sent:,} of {count:,}", file=sys.stderr)
        alive = server.is_alive
    memory = drift.slope("resident_mib", per=10_000)
    flat = memory is None or memory.slope - 2 * memory.error < MAX_GROWTH_MIB
    report = fuzz.report
    return {
        "evidence": "fuzz",
        "passed": alive and flat and not report.complaints,
        "requests": fuzz.sent,
        "bad_inputs_by_hand": len(BAD_INPUTS),
        "statuses": {str(status): times for status, times in sorted(report.statuses.items())},
        "complaints": dict(report.complaints.most_common(20)),
        "alive": alive,
        "slowest_ms": round(report.slowest_s * 1e3, 1),
        "resident_mib": drift.ends("resident_mib"),
        "resident_mib_per_10000_requests": memory and memory.rounded(),
        "seconds": round(time.perf_counter() - start, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="re4-fuzz-") as root:
        result = measure(Path(root), arguments.count, arguments.seed)
    print(json.dumps(result))
    raise SystemExit(not result["passed"])


if __name__ == "__main__":
    main()
