"""The contract, fuzzed: requests made from the OpenAPI document, and bad ones made by hand.

    python tests/evidence/fuzz.py [--count N] [--seed S]

Schemathesis makes valid and invalid requests for every operation, and holds each answer against
the document: its status, headers and body, whether a valid request was refused or an invalid one
answered, and whether a key was asked for. Between its rounds the bad inputs by hand are sent; each
has the one status that it deserves. No answer may be of 5xx, but for a 503 that says why; none may
take longer than half a minute; and the server's memory must stay flat. The last line is one JSON
object; the exit status is 1 if anything was amiss.
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
from bad_inputs import BAD_INPUTS, Bad
from drift import Drift
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from releases import point, write_release
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.core.failures import FailureGroup
from server import Server, serving

from service.auth.api_keys import ROLES, key_line, new_key
from service.http.schemas.common import ErrorBody

PATIENCE_S = 30.0
ROUND = 50  # requests of a kind before the next
DELIBERATE = {"not_ready", "overloaded", "history_unavailable"}
# What a JSON schema cannot say, as the answer does: the limit of an id is of bytes, 5.0 is a number
# that somebody calculated, not a count, and a body that is too long is refused before it is read.
BEYOND_SCHEMAS = ("bytes in UTF-8", "valid integer; given", '"code":"body_too_large"')
# A bad request in a batch is told in its place.
TOLD_IN_PLACE = ("/recommend/batch", "Schema-violating request accepted")
FLAT_MIB = 5.0  # in 10,000 requests


@dataclass
class Report:
    """What came back, and what is wrong with it: each kind of complaint, and the first of them."""

    statuses: Counter[int] = field(default_factory=Counter)
    complaints: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0

    def note(self, status: int, body: bytes, seconds: float, what: str) -> None:
        self.statuses[status] += 1
        self.slowest_s = max(self.slowest_s, seconds)
        if status >= 500 and not (status == 503 and code_of(body) in DELIBERATE):
            self.complain(f"{what}: {status} {body[:200]!r}")

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
        self._client = httpx.Client(base_url=server.url, timeout=PATIENCE_S)
        config = schemathesis.Config.from_dict(
            {"auth": {"openapi": {"HTTPBearer": {"bearer": key}}}}
        )
        schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json", config=config)
        self._kinds: list[tuple[APIOperation, GenerationMode]] = [
            (made.ok(), mode)
            for made in schema.get_all_operations()
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
        ]
        self.report = Report()

    @property
    def sent(self) -> int:
        return self.report.statuses.total()

    def round(self, number: int, count: int) -> None:
        """So many requests of each kind, and the bad inputs by hand."""
        for operation, mode in list(self._kinds):
            try:
                self._try(operation, mode, number, count)
            except Unsatisfiable:  # nothing about it can be invalid
                self._kinds.remove((operation, mode))
        for bad in BAD_INPUTS:
            self._send(bad)

    def _try(self, operation: APIOperation, mode: GenerationMode, number: int, count: int) -> None:
        @seed(number)
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

    def _call(self, case: Case, what: str) -> None:
        try:
            response = case.call(session=self._session, timeout=PATIENCE_S)
        except requests.RequestException as error:
            self.report.statuses[0] += 1
            self.report.complain(f"{what}: no answer ({type(error).__name__})")
            return
        self.report.note(response.status_code, response.content, response.elapsed, what)
        if response.status_code >= 500:
            return
        try:
            case.validate_response(response)
        except FailureGroup as failures:
            for failure in failures.exceptions:
                told = f"{failure.title}: {failure} {response.text}"
                beyond = any(words in told for words in BEYOND_SCHEMAS)
                if not beyond and (case.path, failure.title) != TOLD_IN_PLACE:
                    self.report.complain(f"{what}: {' '.join(told.split())[:400]}")

    def _send(self, bad: Bad) -> None:
        what = f"{bad.method} {bad.path[:60]} {bad.headers or (bad.body or b'')[:60]!r}"
        headers = {**self._headers, **bad.headers}
        sent = {
            name: value.encode("latin-1") for name, value in headers.items() if value is not None
        }
        start = time.perf_counter()
        try:
            response = self._client.request(bad.method, bad.path, content=bad.body, headers=sent)
        except httpx.TransportError as error:
            self.report.statuses[0] += 1
            self.report.complain(f"{what}: no answer ({type(error).__name__})")
            return
        seconds = time.perf_counter() - start
        self.report.note(response.status_code, response.content, seconds, what)
        if response.status_code != bad.status:
            self.report.complain(f"{what}: {response.status_code}, not {bad.status}")
        elif code_of(response.content) is None:
            self.report.complain(f"{what}: an error of another shape")


def measure(root: Path, count: int, number: int) -> dict[str, Any]:
    write_release(root, "fuzzed")
    point(root, "fuzzed")
    key, keys_file = new_key(), root / "keys"
    keys_file.write_text(key_line(key, ROLES) + "\n")
    start = time.perf_counter()
    with serving(root, keys_file=keys_file) as server:
        fuzz, drift = Fuzz(server, key), Drift(server)
        while fuzz.sent < count:
            fuzz.round(number, min(ROUND, max(1, count // 100)))
            drift.sample(fuzz.sent)
            number += 1
            print(f"{fuzz.sent:,} of {count:,}", file=sys.stderr)
        alive = server.is_alive
    memory = drift.slope("resident_mib", per=10_000)
    flat = memory is None or memory.slope - 2 * memory.error < FLAT_MIB
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
    given_ = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="re4-fuzz-") as root:
        result = measure(Path(root), given_.count, given_.seed)
    print(json.dumps(result))
    raise SystemExit(not result["passed"])


if __name__ == "__main__":
    main()
