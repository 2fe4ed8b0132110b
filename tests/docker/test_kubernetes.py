"""The manifests are valid, and each name in one refers to something in another."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.settings import Settings
from service.settings_sources import variable_of

K8S = Path(__file__).parents[2] / "docker" / "k8s"
VERSION = "1.31"


def documents(folder: str) -> dict[tuple[str, str], dict[str, Any]]:
    """By kind and name."""
    listed = yaml.safe_load((K8S / folder / "kustomization.yaml").read_text())["resources"]
    files = [name for name in listed if name.endswith(".yaml")]
    on_disk = {path.name for path in (K8S / folder).glob("*.yaml")}
    assert {*files, "kustomization.yaml"} == on_disk
    found = [d for name in files for d in yaml.safe_load_all((K8S / folder / name).read_text())]
    return {(document["kind"], document["metadata"]["name"]): document for document in found}


BASE = documents("base")
BOTH = {**BASE, **documents("example")}
KUSTOMIZATION = yaml.safe_load((K8S / "base" / "kustomization.yaml").read_text())
EXAMPLE = yaml.safe_load((K8S / "example" / "kustomization.yaml").read_text())
PODS = {
    "api": BASE["Deployment", "re4-api"]["spec"]["template"],
    "nightly": BASE["CronJob", "re4-nightly"]["spec"]["jobTemplate"]["spec"]["template"],
}


@pytest.mark.parametrize("key", BOTH, ids="/".join)
def test_each_manifest_matches_its_schema(key: tuple[str, str]) -> None:
    kubernetes_validate.validate(BOTH[key], VERSION, strict=True)


def test_an_invalid_manifest_is_rejected() -> None:
    invalid = {**BASE["Service", "re4-api"], "spec": {"selecter": {}}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(invalid, VERSION, strict=True)


def test_every_kind_of_manifest_exists() -> None:
    kinds = {kind for kind, _ in BASE}
    assert kinds == {
        *("Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget"),
        *("CronJob", "PersistentVolumeClaim"),
    }


@pytest.mark.parametrize("name", PODS)
def test_everything_that_a_pod_names_exists(name: str) -> None:
    maps = {generated["name"] for generated in KUSTOMIZATION["configMapGenerator"]}
    secrets = {generated["name"] for generated in EXAMPLE["secretGenerator"]}
    spec = PODS[name]["spec"]
    for volume in spec["volumes"]:
        if claim := volume.get("persistentVolumeClaim"):
            assert ("PersistentVolumeClaim", claim["claimName"]) in BASE
        if config := volume.get("configMap"):
            assert config["name"] in maps
        if secret := volume.get("secret"):
            assert secret["secretName"] in secrets
    names = {volume["name"] for volume in spec["volumes"]}
    images = {image["name"] for image in EXAMPLE["images"]}
    for container in spec["containers"]:
        assert {mount["name"] for mount in container["volumeMounts"]} == names
        assert {source["configMapRef"]["name"] for source in container["envFrom"]} <= maps
        assert container["image"] in images


@pytest.mark.parametrize(
    ("name", "keys"), [("api", {"keys", "redis-url"}), ("nightly", {"redis-url"})]
)
def test_a_pod_sees_the_secrets_that_are_for_it(name: str, keys: set[str]) -> None:
    """And nothing that is added to the secret for others: a training run has no API keys."""
    [secret] = [v["secret"] for v in PODS[name]["spec"]["volumes"] if "secret" in v]
    assert {item["key"] for item in secret["items"]} == keys
    assert all(item["key"] == item["path"] for item in secret["items"])
    [example] = EXAMPLE["secretGenerator"]
    assert keys <= set(example["files"])


@pytest.mark.parametrize("name", PODS)
def test_a_pod_meets_the_restricted_security_standard(name: str) -> None:
    spec = PODS[name]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    for container in spec["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]


def test_selectors_match_the_pods_of_the_service() -> None:
    """And those of no other application, as kustomize adds the name label to all of them."""
    [labels] = KUSTOMIZATION["labels"]
    assert labels == {"pairs": {"app.kubernetes.io/name": "re4"}, "includeSelectors": True}
    pod_labels = PODS["api"]["metadata"]["labels"]
    assert BASE["Service", "re4-api"]["spec"]["selector"] == pod_labels
    budget = BASE["PodDisruptionBudget", "re4-api"]["spec"]["selector"]["matchLabels"]
    assert BASE["Deployment", "re4-api"]["spec"]["selector"]["matchLabels"] == budget == pod_labels
    target = BASE["HorizontalPodAutoscaler", "re4-api"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) in BASE


def test_the_settings_exist() -> None:
    literals = KUSTOMIZATION["configMapGenerator"][0]["literals"]
    given = dict(literal.split("=", 1) for literal in literals)
    assert set(given) <= {*map(variable_of, Settings.model_fields)}
    grace_s = PODS["api"]["spec"]["terminationGracePeriodSeconds"]
    assert grace_s > float(given["RE4_DRAIN_S"]) + 10


def test_the_files_of_the_generators_exist() -> None:
    for folder, config in (("base", KUSTOMIZATION), ("example", EXAMPLE)):
        generators = config.get("configMapGenerator", []) + config.get("secretGenerator", [])
        for generated in generators:
            for name in generated.get("files", []):
                assert (K8S / folder / name).is_file()
