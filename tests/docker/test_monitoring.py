"""Rules and dashboard query metrics that exist, and every alert is tested and documented."""

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

from service.telemetry.canary_metrics import CanaryMetrics
from service.telemetry.metric_group import Exposition
from service.telemetry.metrics import Metrics
from service.telemetry.quality_metrics import QualityMetrics

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


def series_names(training_runs: CollectorRegistry) -> set[str]:
    """The names of all series that the service and the schedule export."""
    metrics = Metrics()
    CanaryMetrics(metrics)
    QualityMetrics(metrics)
    families = [*metrics.registry.collect(), *training_runs.collect()]
    return {family.name + suffix for family in families for suffix in _SUFFIXES[family.type]}


def labels_of_shops() -> dict[str, set[str]]:
    """The labels of each series of a service of several shops that is a shop's."""
    exposition = Exposition()
    metrics = Metrics(exposition, "garden")
    CanaryMetrics(metrics)
    QualityMetrics(metrics)
    return {
        name + suffix: {*family._labelnames, *(["le"] if suffix == "_bucket" else [])}
        for name, family in exposition._families.items()
        for suffix in _SUFFIXES[family._type]
    }


def queries() -> Iterator[tuple[str, str]]:
    """The name of the alert or panel, and its PromQL expression."""
    for alert in ALERTS:
        yield alert["alert"], alert["expr"]
    for panel in PANELS:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for annotation in DASHBOARD["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]


def nodes_in(expression: str) -> list[promql_parser.Expr]:
    """Raises ValueError if it is no PromQL."""
    nodes: list[promql_parser.Expr] = []
    promql_parser.walk(promql_parser.parse(expression), pre_visit=nodes.append)
    return nodes


def selectors_in(expression: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The metrics that it queries, each with the values of its labels that are wanted."""
    for node in nodes_in(expression):
        if isinstance(node, promql_parser.VectorSelector):
            yield str(node.name), {each.name: each.value for each in node.matchers.matchers}


def names_in(expression: str) -> set[str]:
    """The metrics that it queries. Raises ValueError if it is no PromQL."""
    return {name for name, _ in selectors_in(expression)}


def labels_in(expression: str) -> set[str]:
    """The labels that it groups by."""
    groupings = [
        n.modifier for n in nodes_in(expression) if isinstance(n, promql_parser.AggregateExpr)
    ]
    return {label for grouping in groupings if grouping is not None for label in grouping.labels}


def test_only_existing_metrics_are_queried(training_runs: CollectorRegistry) -> None:
    known = series_names(training_runs) | {"up"}
    for name, expression in queries():
        names = names_in(expression)
        assert names, name
        assert names <= known, name


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("sum(rate(re4_requests_total[5m])", "unclosed left parenthesis"),
        ("rate(re4_requests_total)", "expected type matrix"),
    ],
)
def test_invalid_promql_is_rejected(expression: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        names_in(expression)


def test_the_queried_jobs_are_scraped() -> None:
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))
    scraped = {job["job_name"] for job in config["scrape_configs"]}
    assert {job for _, text in queries() for job in re.findall(r'job="(\w+)"', text)} <= scraped
    assert config["rule_files"] == ["alerts.yml"]


def test_the_queried_labels_exist() -> None:
    metrics = Metrics()
    stages = {
        "re4_request_seconds": {"history", "total"},
        "re4_batch_stage_seconds": {"queue", "encode", "search", "merge"},
    }
    for name, expected in stages.items():
        pattern = rf'{name}\w*\{{stage="(\w+)"'
        queried = {stage for _, text in queries() for stage in re.findall(pattern, text)}
        exported = {
            sample.labels["stage"]
            for family in metrics.registry.collect()
            if family.name == name
            for sample in family.samples
        }
        assert queried <= exported == expected
    pattern = r're4_training_run_last\{outcome="([\w-]+)"'
    outcomes = {outcome for _, text in queries() for outcome in re.findall(pattern, text)}
    assert outcomes <= {"published", "failed", "refused", "nothing-new"}


def test_the_labels_of_the_dashboard_exist() -> None:
    known = labels_of_shops()
    for name, expression in queries():
        selected = [*selectors_in(expression)]
        for series, wanted in selected:
            assert {*wanted} <= known.get(series, {"job", "outcome"}), name
        if {series for series, _ in selected} <= known.keys():
            grouped = labels_in(expression)
            assert all(grouped <= known[series] for series, _ in selected), name


def test_the_dashboard_is_of_the_chosen_shops() -> None:
    [variable] = DASHBOARD["templating"]["list"]
    assert (variable["name"], variable["allValue"]) == ("tenant", ".*")
    known = labels_of_shops()
    assert names_in(
        re.sub(r"label_values\((\w+), tenant\)", r"\1", variable["query"]["query"])
    ) <= {*known}
    for panel in [*PANELS, *DASHBOARD["annotations"]["list"]]:
        for target in panel.get("targets", [panel] if "expr" in panel else []):
            for series, wanted in selectors_in(target["expr"]):
                assert (wanted.get("tenant") == "$tenant") == (series in known), series


def test_every_alert_is_tested_and_documented() -> None:
    names = [alert["alert"] for alert in ALERTS]
    assert len(set(names)) == len(names)
    tests = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text(encoding="utf-8"))["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    assert {case["alertname"] for case in cases if case.get("exp_alerts")} == set(names)
    assert {case["alertname"] for case in tests[0]["alert_rule_test"]} == set(names)
    readme = (ROOT / "docker" / "README.md").read_text(encoding="utf-8")
    assert [name for name in names if f"| `{name}` |" not in readme] == []
    for alert in ALERTS:
        assert alert["labels"]["severity"] in ("critical", "warning")


def test_the_dashboard_is_laid_out() -> None:
    covered = set()
    for panel in PANELS:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & covered, f"{panel['title']} covers another"
        covered |= cells
    ids = [panel["id"] for panel in PANELS]
    assert len(set(ids)) == len(ids)
    rows = {panel["title"] for panel in PANELS if panel["type"] == "row"}
    assert {
        "Traffic",
        "Latency by stage",
        "Quality and interests",
        "Releases and training runs",
        "Redis",
    } <= rows


def test_the_dashboard_uses_a_provisioned_data_source() -> None:
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
    process = subprocess.run(
        ["promtool", *words], cwd=PROMETHEUS, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stdout + process.stderr


@needs_promtool
def test_prometheus_accepts_the_config() -> None:
    promtool("check", "config", "prometheus.yml")


@needs_promtool
def test_the_alerts_fire_as_expected() -> None:
    promtool("test", "rules", "alerts_test.yml")


@needs_promtool
def test_prometheus_accepts_the_queries_of_the_dashboard(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{n}", "expr": text} for n, (_, text) in enumerate(queries())]
    path = tmp_path / "panels.yml"
    path.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", path)
