"""Rules and dashboard ask for what is told, and every alert is tested and explained."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client import CollectorRegistry

from service.telemetry.metrics import Metrics

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "docker" / "prometheus"
RULES = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text(encoding="utf-8"))
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"]]
DASHBOARD = json.loads((ROOT / "docker/grafana/dashboards/re4.json").read_text(encoding="utf-8"))
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
_SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="no promtool; Debian has it in the package prometheus"
)


def told(nights: CollectorRegistry) -> set[str]:
    """The names of all series that the service and the schedule of the nights tell."""
    families = [*Metrics().registry.collect(), *nights.collect()]
    return {family.name + suffix for family in families for suffix in _SUFFIXES[family.type]}


def asked() -> Iterator[tuple[str, str]]:
    """Where, and what."""
    for alert in ALERTS:
        yield alert["alert"], alert["expr"]
    for panel in PANELS:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for annotation in DASHBOARD["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]


def names_in(expression: str) -> set[str]:
    """Of the metrics that it asks for. Raises ValueError if it is no PromQL."""
    names: set[str] = set()

    def note(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            names.add(str(node.name))

    promql_parser.walk(promql_parser.parse(expression), pre_visit=note)
    return names


def test_only_what_is_told_is_asked_for(nights: CollectorRegistry) -> None:
    known = told(nights) | {"up"}
    for where, expression in asked():
        names = names_in(expression)
        assert names, where
        assert names <= known, where


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("sum(rate(re4_requests_total[5m])", "unclosed left parenthesis"),
        ("rate(re4_requests_total)", "expected type matrix"),
    ],
)
def test_what_is_no_promql_is_seen(wrong: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        names_in(wrong)


def test_the_jobs_asked_for_are_scraped() -> None:
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))
    scraped = {job["job_name"] for job in config["scrape_configs"]}
    assert {job for _, text in asked() for job in re.findall(r'job="(\w+)"', text)} <= scraped
    assert config["rule_files"] == ["alerts.yml"]


def test_the_labels_asked_for_are_told() -> None:
    metrics = Metrics()
    labels = {
        "re4_stage_seconds": {"history", "queue", "encode", "search", "merge", "total"},
        "re4_night_last": {"published", "failed", "refused", "nothing-new"},
    }
    asked_for = {
        stage for _, text in asked() for stage in re.findall(r're4_stage\w+\{stage="(\w+)"', text)
    }
    stages = {
        sample.labels["stage"]
        for family in metrics.registry.collect()
        if family.name == "re4_stage_seconds"
        for sample in family.samples
    }
    assert asked_for <= stages == labels["re4_stage_seconds"]
    outcomes = {o for _, t in asked() for o in re.findall(r're4_night_last\{outcome="([\w-]+)"', t)}
    assert outcomes <= labels["re4_night_last"]


def test_every_alert_is_tested_and_explained() -> None:
    names = [alert["alert"] for alert in ALERTS]
    assert len(set(names)) == len(names)
    tests = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text(encoding="utf-8"))["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    assert {case["alertname"] for case in cases if case.get("exp_alerts")} == set(names)
    assert {case["alertname"] for case in tests[0]["alert_rule_test"]} == set(names)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in names if f"| `{name}` |" not in readme] == []
    for alert in ALERTS:
        assert alert["labels"]["severity"] in ("critical", "warning")


def test_the_dashboard_is_laid_out() -> None:
    places = set()
    for panel in PANELS:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & places, f"{panel['title']} covers another"
        places |= cells
    ids = [panel["id"] for panel in PANELS]
    assert len(set(ids)) == len(ids)
    rows = {panel["title"] for panel in PANELS if panel["type"] == "row"}
    assert {
        "Traffic",
        "Latency by stage",
        "Quality and interests",
        "Releases and nights",
        "Redis",
    } <= rows


def test_the_dashboard_finds_its_source() -> None:
    provisioning = ROOT / "docker/grafana/provisioning"
    sources = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())
    known = {source["uid"] for source in sources["datasources"]}
    for panel in PANELS:
        for target in panel.get("targets", []):
            assert target["datasource"]["uid"] in known
            assert panel["description"]
    provider = yaml.safe_load((provisioning / "dashboards/re4.yml").read_text())["providers"][0]
    assert f":{provider['options']['path']}:ro" in (ROOT / "docker-compose.yml").read_text()


def promtool(*words: str | Path) -> None:
    ended = subprocess.run(
        ["promtool", *words], cwd=PROMETHEUS, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


@needs_promtool
def test_prometheus_takes_the_rules() -> None:
    promtool("check", "config", "prometheus.yml")


@needs_promtool
def test_the_alerts_fire_when_they_are_to() -> None:
    promtool("test", "rules", "alerts_test.yml")


@needs_promtool
def test_prometheus_understands_the_dashboard(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{n}", "expr": text} for n, (_, text) in enumerate(asked())]
    path = tmp_path / "panels.yml"
    path.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", path)
