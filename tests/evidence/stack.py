"""The Docker stack, started for real: from nothing to answers, with a nightly run, and removed.

Needs Docker, docker-compose, and the images that the compose file names, or network access to them.
The stack is a project of its own, whose volumes are removed at the end. The last line is a JSON
summary; the exit code is 1 if a check fails.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx
from tenacity import (
    Retrying,
    retry_if_exception_type,
    retry_if_result,
    stop_after_delay,
    wait_fixed,
)

REPOSITORY = Path(__file__).resolve().parents[2]
T = TypeVar("T")


class Stack:
    def __init__(self, project: str, port: int, services: list[str]) -> None:
        self.project, self._services = project, services
        self.environment = {**os.environ, "API_PORT": str(port)}
        self.api = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10)

    def compose(self, *arguments: str, check: bool = True) -> str:
        process = subprocess.run(
            ["docker-compose", "--project-name", self.project, *arguments],
            cwd=REPOSITORY,
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
            check=check,
        )
        return process.stdout

    def up(self) -> None:
        self.compose("up", "--detach", *self._services)

    def down(self) -> None:
        self.compose("--profile", "traffic", "down", "--volumes", "--timeout", "30", check=False)

    def recommend(self, request: dict[str, Any]) -> dict[str, Any]:
        response = self.api.post("/recommend", json=request)
        response.raise_for_status()
        body: dict[str, Any] = response.json()
        return body

    def release(self) -> str:
        return str(self.api.get("/release").json()["release"]["id"])


def wait(poll: Callable[[], T | None], seconds: float) -> T:
    """The first truthy result of `poll`. Raises RetryError after `seconds`."""
    retrying = Retrying(
        retry=retry_if_exception_type(httpx.HTTPError) | retry_if_result(lambda result: not result),
        stop=stop_after_delay(seconds),
        wait=wait_fixed(0.5),
    )
    result = retrying(poll)
    assert result is not None
    return result


def targets(prometheus: httpx.Client) -> dict[str, str] | None:
    """The health of each job; None until it is known for all of them."""
    active = prometheus.get("/api/v1/targets").json()["data"]["activeTargets"]
    health = {target["labels"]["job"]: target["health"] for target in active}
    return health if len(health) == 3 and "unknown" not in health.values() else None


def run_nightly(stack: Stack, user: str, items: list[str]) -> dict[str, Any]:
    """The outcome of a nightly run, and whether every request during it was answered."""
    before, old = stack.recommend({"user_id": user, "k": 10}), stack.release()
    for number, item in enumerate(items):
        event = {"user_id": user, "item_id": item, "event_id": str(number)}
        stack.api.post("/events", json=event).raise_for_status()
    process = subprocess.Popen(
        ["docker-compose", "--project-name", stack.project, "run", "--rm", "nightly"],
        cwd=REPOSITORY,
        env=stack.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    requests = failures = 0
    while process.poll() is None:
        requests += 1
        failures += stack.api.post("/recommend", json={"user_id": user}).status_code != 200
        time.sleep(0.05)
    assert process.stdout is not None
    outcome = json.loads(process.stdout.read().splitlines()[-1])
    new = wait(lambda: name if (name := stack.release()) != old else None, 10)
    after = stack.recommend({"user_id": user, "k": 10})
    return {
        "outcome": outcome,
        "release_before": old,
        "release_after": new,
        "asked_meanwhile": requests,
        "failed_meanwhile": failures,
        "answered_differently": before["items"] != after["items"],
    }


def run(stack: Stack, traffic_s: float) -> dict[str, Any]:
    summary: dict[str, Any] = {}
    started = time.monotonic()
    stack.up()
    wait(lambda: stack.api.get("/readyz").status_code == 200, 600)
    summary["seconds_to_ready"] = round(time.monotonic() - started, 1)
    example = stack.compose(
        "exec", "-T", "scheduler", "python", "-m", "index", "example", "--root", "/shop"
    )
    request = json.loads(example.rpartition("-d ")[2].strip().strip("'"))
    response = stack.recommend(request)
    summary["first_answer"] = response["source"]
    summary["seconds_to_first_answer"] = round(time.monotonic() - started, 1)
    with httpx.Client(base_url="http://127.0.0.1:9090", timeout=10) as prometheus:
        summary["targets"] = wait(lambda: targets(prometheus), 60)
        rules = prometheus.get("/api/v1/rules").json()["data"]["groups"]
        summary["alert_rules"] = sum(len(group["rules"]) for group in rules)
    if traffic_s:
        stack.compose("--profile", "traffic", "up", "--detach", "traffic")
        time.sleep(traffic_s)
        items = [item["item_id"] for item in response["items"]]
        summary["night"] = run_nightly(stack, "somebody-new", items)
    return summary


def passed(summary: dict[str, Any]) -> bool:
    nightly = summary.get("night")
    return (
        summary["first_answer"] == "interests"
        and set(summary["targets"].values()) == {"up"}
        and summary["alert_rules"] > 0
        and (
            nightly is None
            or (
                nightly["outcome"]["outcome"] == "published"
                and nightly["failed_meanwhile"] == 0
                and nightly["answered_differently"]
            )
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--project", default="re4-try")
    parser.add_argument("--port", type=int, default=18000)
    parser.add_argument(
        "--traffic-s",
        type=float,
        default=60.0,
        help="seconds of traffic before a nightly run; 0: no run",
    )
    parser.add_argument(
        "--grafana",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="start Grafana too; --no-grafana if its image is not available",
    )
    arguments = parser.parse_args()
    grafana = ["grafana"] if arguments.grafana else []
    services = ["api", "scheduler", "prometheus", *grafana]
    stack = Stack(arguments.project, arguments.port, services)
    try:
        summary = run(stack, arguments.traffic_s)
    except BaseException:
        print(stack.compose("logs", "--tail", "40", "--no-color", check=False), file=sys.stderr)
        raise
    finally:
        stack.down()
    summary["passed"] = passed(summary)
    print(json.dumps(summary))
    sys.exit(not summary["passed"])


if __name__ == "__main__":
    main()
