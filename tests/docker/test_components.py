"""What an installation on Kubernetes may add: valid by itself, and merged into the base."""

import copy
from pathlib import Path
from typing import Any

import kubernetes_validate
import promql_parser
import pytest
import yaml

from service.http.endpoints.recommend import ROUTE
from service.settings import Settings
from service.settings_sources import PREFIX, variable_of
from service.telemetry.metrics import Metrics

K8S = Path(__file__).parents[2] / "docker" / "k8s"
VERSION = "1.31"
COMPONENTS = ("metrics", "gpu", "sticky", "milvus")
CONFIGURATION = {"adapter-rules.yaml"}  # of something else than this cluster's objects
Document = dict[str, Any]


def listed(component: str, field: str) -> list[Document]:
    kustomization = yaml.safe_load((K8S / component / "kustomization.yaml").read_text())
    entries = kustomization.get(field, [])
    names = [entry["path"] if isinstance(entry, dict) else entry for entry in entries]
    return [d for name in names for d in yaml.safe_load_all((K8S / component / name).read_text())]


def base() -> dict[tuple[str, str], Document]:
    texts = [path.read_text() for path in (K8S / "base").glob("*.yaml")]
    found = [document for text in texts for document in yaml.safe_load_all(text)]
    return {(d["kind"], d["metadata"]["name"]): d for d in found if "metadata" in d}


def merged(target: Any, patch: Any) -> Any:
    """A strategic merge, as far as these patches need it: named entries by name, else replaced."""
    if isinstance(target, dict) and isinstance(patch, dict):
        both = {key: merged(target[key], patch[key]) for key in target.keys() & patch.keys()}
        return {**target, **patch, **both}
    if isinstance(patch, list) and all("name" in entry for entry in [*target, *patch]):
        named = {entry["name"]: entry for entry in target}
        for entry in patch:
            named[entry["name"]] = merged(named.get(entry["name"], {}), entry)
        return [*named.values()]
    return patch


@pytest.mark.parametrize("component", COMPONENTS)
def test_every_file_is_named_and_every_object_valid(component: str) -> None:
    kustomization = yaml.safe_load((K8S / component / "kustomization.yaml").read_text())
    assert kustomization["kind"] == "Component"
    named = {entry["path"] for entry in kustomization.get("patches", [])}
    named |= {*kustomization.get("resources", []), "kustomization.yaml"}
    on_disk = {path.name for path in (K8S / component).iterdir()}
    assert on_disk - CONFIGURATION == named
    for document in listed(component, "resources"):
        kubernetes_validate.validate(document, VERSION, strict=True)


@pytest.mark.parametrize("component", ["metrics", "gpu", "milvus"])
def test_each_patch_changes_an_object_of_the_base_to_a_valid_one(component: str) -> None:
    objects = base()
    for patch in listed(component, "patches"):
        target = objects[patch["kind"], patch["metadata"]["name"]]
        changed = merged(copy.deepcopy(target), patch)
        assert changed != target
        kubernetes_validate.validate(changed, VERSION, strict=True)


def test_the_metrics_that_replicas_are_scaled_by_are_those_of_the_adapter() -> None:
    [scaling] = listed("metrics", "patches")
    metrics = [
        each["pods"]["metric"]["name"] for each in scaling["spec"]["metrics"] if "pods" in each
    ]
    rules = yaml.safe_load((K8S / "metrics" / "adapter-rules.yaml").read_text())["rules"]
    exposed = Metrics().text().decode()
    given = []
    for rule in rules:
        series = rule["seriesQuery"].partition("{")[0]
        assert f"\n# TYPE {series.removesuffix('_total')} " in exposed.replace("_total", "")
        given.append(rule.get("name", {}).get("as", series))
        query = rule["metricsQuery"].replace("<<.Series>>", series).replace("<<.GroupBy>>", "pod")
        promql_parser.parse(query.replace("<<.LabelMatchers>>", 'namespace="re4"'))
    assert metrics == given == ["re4_requests_per_second", "re4_queue_age_seconds"]
    assert f'"{ROUTE}' in rules[0]["metricsQuery"]


@pytest.mark.parametrize("component", ["gpu", "milvus"])
def test_the_settings_exist_and_are_accepted(component: str) -> None:
    [patch] = listed(component, "patches")
    [container] = patch["spec"]["template"]["spec"]["containers"]
    given = {entry["name"]: entry["value"] for entry in container["env"]}
    assert set(given) <= {*map(variable_of, Settings.model_fields)}
    Settings(releases=K8S, **{n.removeprefix(PREFIX).lower(): v for n, v in given.items()})


def test_the_milvus_is_pinned_restricted_and_found_by_the_service() -> None:
    service, state = listed("milvus", "resources")
    pod = state["spec"]["template"]
    assert pod["metadata"]["labels"] == service["spec"]["selector"]
    [container] = pod["spec"]["containers"]
    compose = (K8S.parents[1] / "docker-compose.yml").read_text()
    assert f"image: {container['image']}\n" in compose
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    [patch] = listed("milvus", "patches")
    uri = patch["spec"]["template"]["spec"]["containers"][0]["env"][1]["value"]
    port = service["spec"]["ports"][0]["port"]
    assert uri == f"http://{service['metadata']['name']}:{port}"


def test_the_ingress_names_the_service() -> None:
    [ingress] = listed("sticky", "resources")
    [path] = ingress["spec"]["rules"][0]["http"]["paths"]
    backend = path["backend"]["service"]
    ports = base()["Service", backend["name"]]["spec"]["ports"]
    assert backend["port"]["name"] in {port["name"] for port in ports}
