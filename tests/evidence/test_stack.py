"""What the stack's test takes for a fault of its monitoring."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.evidence import stack

SOUND = {"name": "A", "health": "ok", "state": "inactive"}
VALUE = {"status": "success", "data": {"result": [{"value": [0, "1"]}]}}
NOTHING = {"status": "success", "data": {"result": []}}
REFUSED = {"status": "error", "error": "parse error"}


def monitoring(
    answer: Callable[[str], dict[str, Any]], rule: dict[str, str] | None = None
) -> dict[str, Any]:
    """The summary's, of a Prometheus that answers like this."""

    def respond(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/api/v1/rules":
            return httpx.Response(200, json={"data": {"groups": [{"rules": [rule or SOUND]}]}})
        reply = answer(request.url.params["query"])
        return httpx.Response(200 if reply["status"] == "success" else 400, json=reply)

    transport = httpx.MockTransport(respond)
    with httpx.Client(base_url="http://prometheus", transport=transport) as client:
        return stack.monitoring(client)


def is_passed(seen: dict[str, Any]) -> bool:
    run = {
        "outcome": {"outcome": "published"},
        "failed_meanwhile": 0,
        "recommendations_changed": True,
    }
    return stack.passed(
        {
            "first_source": "interests",
            "targets": {"api": "up"},
            "monitoring": seen,
            "training_run": run,
        }
    )


def test_a_sound_stack_passes() -> None:
    assert is_passed(monitoring(lambda query: VALUE))
    assert is_passed(monitoring(lambda query: NOTHING if "canary" in query else VALUE))


@pytest.mark.parametrize("reply", [NOTHING, REFUSED])
def test_a_query_of_the_dashboard_without_an_answer_is_named(reply: dict[str, Any]) -> None:
    seen = monitoring(lambda query: reply if "re4_withdrawn_items" in query else VALUE)
    assert [*seen["empty_queries"], *seen["refused_queries"]] == [
        'max(re4_withdrawn_items{tenant=~"$tenant"})'
    ]
    assert not is_passed(seen)


@pytest.mark.parametrize("fault", [{"health": "err"}, {"state": "firing"}])
def test_an_alert_that_fails_or_fires_is_named(fault: dict[str, str]) -> None:
    seen = monitoring(lambda query: VALUE, SOUND | fault)
    assert [*seen["failing_rules"], *seen["firing"]] == ["A"]
    assert not is_passed(seen)


def test_the_queries_name_no_other_variable() -> None:
    """Grafana replaces variables; the stack's test replaces this one alone."""
    panels = json.loads(stack.DASHBOARD.read_text(encoding="utf-8"))["panels"]
    for panel in panels:
        for target in panel.get("targets", []):
            assert "$" not in target["expr"].replace("$tenant", "")
