"""The real stack: start it, send requests, check monitoring, run a training run, remove it.

Needs Docker, docker-compose, and the images that the compose file names, or access to them. It uses
a compose project of its own, whose volumes are removed at the end. The last line is a summary.
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

REPOSITORY = Path(__file__).resolve().parents[2]
DASHBOARD = REPOSITORY / "docker" / "grafana" / "dashboards" / "re4.json"
# Panels of these metrics are empty in a new stack: hit rates after a day, the others when needed.
EMPTY_AT_FIRST = ("re4_live_hit_rate", "re4_canary_", "failures_total")
SCRAPE_INTERVAL_S = 10.0
T = TypeVar("T")


class Stack:
    def __init__(self, project: str, port: int, services: list[str]) -> None:
        self.project, self._services = project, services
        self.environment = {**os.environ, "API_PORT": str(port)}
        self.api = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10)

    def compose(self, *words: str, check: bool = True) -> str:
        process = subprocess.run(
            ["docker-compose", "--project-name", self.project, *words],
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

    def recommend(self, body: dict[str, Any]) -> dict[str, Any]:
        response = self.api.post("/recommend", json=body)
        response.raise_for_status()
        recommendations: dict[str, Any] = response.json()
        return recommendations

    def release(self) -> str:
        return str(self.api.get("/release").json()["release"]["id"])


def wait(poll: Callable[[], T | None], seconds: float) -> T:
    """The first result that is not None or false."""
    deadline_s = time.monotonic() + seconds
    while time.monotonic() < deadline_s:
        try:
            if result := poll():
                return result
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    raise TimeoutError(f"no result within {seconds:.0f} s")


def targets(prometheus: httpx.Client) -> dict[str, str] | None:
    """The health of each job, once all are known."""
    active = prometheus.get("/api/v1/targets").json()["data"]["activeTargets"]
    health = {target["labels"]["job"]: target["health"] for target in active}
    return health if len(health) == 3 and "unknown" not in health.values() else None


def monitoring(prometheus: httpx.Client) -> dict[str, Any]:
    """What Prometheus says of the alert rules, and of each query of the dashboard for all shops."""
    groups = prometheus.get("/api/v1/rules").json()["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    queries = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    refused, empty = [], []
    for query in queries:
        parameters = {"query": query.replace("$tenant", ".*")}
        answer = prometheus.get("/api/v1/query", params=parameters).json()
        if answer["status"] != "success":
            refused.append(query)
        elif not answer["data"]["result"] and not any(name in query for name in EMPTY_AT_FIRST):
            empty.append(query)
    return {
        "alert_rules": len(rules),
        "failing_rules": [rule["name"] for rule in rules if rule["health"] != "ok"],
        "firing": [rule["name"] for rule in rules if rule["state"] == "firing"],
        "queries": len(queries),
        "refused_queries": refused,
        "empty_queries": empty,
    }


def training_run(stack: Stack, visitor: str, items: list[str]) -> dict[str, Any]:
    """The outcome of a training run, and the requests that failed meanwhile."""
    before, old = stack.recommend({"user_id": visitor, "k": 10}), stack.release()
    for number, item in enumerate(items):
        event = {"user_id": visitor, "item_id": item, "event_id": str(number)}
        stack.api.post("/events", json=event).raise_for_status()
    process = subprocess.Popen(
        ["docker-compose", "--project-name", stack.project, "run", "--rm", "nightly"],
        cwd=REPOSITORY,
        env=stack.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    requests = failed = 0
    while process.poll() is None:
        requests += 1
        failed += stack.api.post("/recommend", json={"user_id": visitor}).status_code != 200
        time.sleep(0.05)
    assert process.stdout is not None
    outcome = json.loads(process.stdout.read().splitlines()[-1])
    new = wait(lambda: name if (name := stack.release()) != old else None, 10)
    after = stack.recommend({"user_id": visitor, "k": 10})
    return {
        "outcome": outcome,
        "release_before": old,
        "release_after": new,
        "requests_meanwhile": requests,
        "failed_meanwhile": failed,
        "recommendations_changed": before["items"] != after["items"],
    }


def measure(stack: Stack, traffic_s: float) -> dict[str, Any]:
    summary: dict[str, Any] = {}
    started = time.monotonic()
    stack.up()
    wait(lambda: stack.api.get("/readyz").status_code == 200, 600)
    summary["seconds_to_ready"] = round(time.monotonic() - started, 1)
    example = stack.compose(
        "exec", "-T", "scheduler", "python", "-m", "index", "example", "--root", "/shop"
    )
    body = json.loads(example.rpartition("-d ")[2].strip().strip("'"))
    first = stack.recommend(body)
    summary["first_source"] = first["source"]
    summary["seconds_to_first_response"] = round(time.monotonic() - started, 1)
    with httpx.Client(base_url="http://127.0.0.1:9090", timeout=10) as prometheus:
        summary["targets"] = wait(lambda: targets(prometheus), 60)
        if traffic_s:
            stack.compose("--profile", "traffic", "up", "--detach", "traffic")
            time.sleep(traffic_s)
            items = [item["item_id"] for item in first["items"]]
            summary["training_run"] = training_run(stack, "somebody-new", items)
        time.sleep(2 * SCRAPE_INTERVAL_S)  # until the rules are evaluated, and the run is scraped
        summary["monitoring"] = monitoring(prometheus)
    return summary


def passed(summary: dict[str, Any]) -> bool:
    run, seen = summary.get("training_run"), summary["monitoring"]
    return (
        summary["first_source"] == "interests"
        and set(summary["targets"].values()) == {"up"}
        and seen["alert_rules"] > 0
        and not (seen["failing_rules"] or seen["firing"] or seen["refused_queries"])
        and (
            run is None
            or (
                run["outcome"]["outcome"] == "published"
                and run["failed_meanwhile"] == 0
                and run["recommendations_changed"]
                and not seen["empty_queries"]
            )
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--project", default="re4-try", help="name of the compose project")
    parser.add_argument("--port", type=int, default=18000, help="port of the API")
    parser.add_argument(
        "--traffic-s",
        type=float,
        default=60.0,
        help="seconds of simulated traffic before a training run; 0: neither",
    )
    parser.add_argument(
        "--grafana",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="whether to start Grafana, which needs its image",
    )
    arguments = parser.parse_args()
    services = ["api", "scheduler", "prometheus", *(["grafana"] if arguments.grafana else [])]
    stack = Stack(arguments.project, arguments.port, services)
    try:
        summary = measure(stack, arguments.traffic_s)
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
