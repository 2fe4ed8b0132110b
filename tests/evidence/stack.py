"""The stack for real: from nothing to answers, watched, through a night, and away again.

Needs Docker, docker-compose, and the images that the compose file names, or a way to get them. What
is started is a project of its own, whose volumes are gone at the end. The last line is a summary.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import httpx

REPOSITORY = Path(__file__).resolve().parents[2]
T = TypeVar("T")


class Stack:
    def __init__(self, project: str, port: int, services: list[str]) -> None:
        self.project, self._services = project, services
        self.environment = {**os.environ, "API_PORT": str(port)}
        self.api = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10)

    def compose(self, *words: str, check: bool = True) -> str:
        ended = subprocess.run(
            ["docker-compose", "--project-name", self.project, *words],
            cwd=REPOSITORY,
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
            check=check,
        )
        return ended.stdout

    def up(self) -> None:
        self.compose("up", "--detach", *self._services)

    def down(self) -> None:
        self.compose("--profile", "traffic", "down", "--volumes", "--timeout", "30", check=False)

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        response = self.api.post("/recommend", json=body)
        response.raise_for_status()
        told: dict[str, Any] = response.json()
        return told

    def release(self) -> str:
        return str(self.api.get("/release").json()["release"]["id"])


def wait(found: Callable[[], T | None], seconds: float) -> T:
    """The first answer that is not None or false."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        try:
            if answer := found():
                return answer
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    raise TimeoutError(f"waited {seconds:.0f} s in vain")


def targets(prometheus: httpx.Client) -> dict[str, str] | None:
    """The health of each job, once it is known of all."""
    active = prometheus.get("/api/v1/targets").json()["data"]["activeTargets"]
    health = {target["labels"]["job"]: target["health"] for target in active}
    return health if len(health) == 3 and "unknown" not in health.values() else None


def night(stack: Stack, visitor: str, items: list[str]) -> dict[str, Any]:
    """What a night did, and whether somebody who kept asking meanwhile was always answered."""
    before, old = stack.answer({"user_id": visitor, "k": 10}), stack.release()
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
    asked = failed = 0
    while process.poll() is None:
        asked += 1
        failed += stack.api.post("/recommend", json={"user_id": visitor}).status_code != 200
        time.sleep(0.05)
    assert process.stdout is not None
    outcome = json.loads(process.stdout.read().splitlines()[-1])
    new = wait(lambda: name if (name := stack.release()) != old else None, 10)
    after = stack.answer({"user_id": visitor, "k": 10})
    return {
        "outcome": outcome,
        "release_before": old,
        "release_after": new,
        "asked_meanwhile": asked,
        "failed_meanwhile": failed,
        "answered_differently": before["items"] != after["items"],
    }


def tried(stack: Stack, traffic_s: float) -> dict[str, Any]:
    told: dict[str, Any] = {}
    started = time.monotonic()
    stack.up()
    wait(lambda: stack.api.get("/readyz").status_code == 200, 600)
    told["seconds_to_ready"] = round(time.monotonic() - started, 1)
    example = stack.compose(
        "exec", "-T", "scheduler", "python", "-m", "index", "example", "--root", "/shop"
    )
    body = json.loads(example.rpartition("-d ")[2].strip().strip("'"))
    answer = stack.answer(body)
    told["first_answer"] = answer["source"]
    told["seconds_to_first_answer"] = round(time.monotonic() - started, 1)
    with httpx.Client(base_url="http://127.0.0.1:9090", timeout=10) as prometheus:
        told["targets"] = wait(lambda: targets(prometheus), 60)
        rules = prometheus.get("/api/v1/rules").json()["data"]["groups"]
        told["alert_rules"] = sum(len(group["rules"]) for group in rules)
    if traffic_s:
        stack.compose("--profile", "traffic", "up", "--detach", "traffic")
        time.sleep(traffic_s)
        items = [item["item_id"] for item in answer["items"]]
        told["night"] = night(stack, "somebody-new", items)
    return told


def passed(told: dict[str, Any]) -> bool:
    tonight = told.get("night")
    return (
        told["first_answer"] == "interests"
        and set(told["targets"].values()) == {"up"}
        and told["alert_rules"] > 0
        and (
            tonight is None
            or (
                tonight["outcome"]["outcome"] == "published"
                and tonight["failed_meanwhile"] == 0
                and tonight["answered_differently"]
            )
        )
    )


@click.command()
@click.option("--project", default="re4-try", show_default=True)
@click.option("--port", default=18000, show_default=True)
@click.option(
    "--traffic-s", default=60.0, show_default=True, help="of visitors before a night; 0: none"
)
@click.option("--grafana/--no-grafana", default=True, help="whether its image can be had")
def main(project: str, port: int, traffic_s: float, grafana: bool) -> None:
    services = ["api", "scheduler", "prometheus", *(["grafana"] if grafana else [])]
    stack = Stack(project, port, services)
    try:
        told = tried(stack, traffic_s)
    except BaseException:
        print(stack.compose("logs", "--tail", "40", "--no-color", check=False), file=sys.stderr)
        raise
    finally:
        stack.down()
    told["passed"] = passed(told)
    print(json.dumps(told))
    sys.exit(not told["passed"])


if __name__ == "__main__":
    main()
