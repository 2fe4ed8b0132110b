"""The compose files keep the stack's promises, and name only what exists."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import Settings
from service.settings_sources import RENAMED_OPTIONS, variable_of
from training.nightly.config import read_night_config

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
TEXT = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
STACK: dict[str, Any] = yaml.safe_load(re.sub(r"\$\{\w+:?-([^}]*)\}", r"\1", TEXT))
SERVICES: dict[str, dict[str, Any]] = STACK["services"]
OWN = {"re4-server", "re4-trainer"}


def mounts(name: str) -> list[tuple[str, str, str]]:
    found = [volume.split(":") for volume in SERVICES[name].get("volumes", [])]
    return [(source, target, "".join(mode)) for source, target, *mode in found]


@pytest.mark.parametrize("name", SERVICES)
def test_each_container_is_restricted(name: str) -> None:
    service = SERVICES[name]
    assert service["user"] == "10001:10001"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert not service.get("privileged")
    assert not [source for source, _, _ in mounts(name) if source.endswith("docker.sock")]


@pytest.mark.parametrize("name", SERVICES)
def test_each_image_is_built_here_or_pinned(name: str) -> None:
    image = SERVICES[name]["image"]
    if image in OWN:
        assert f"AS {SERVICES[name]['build']['target']}\n" in DOCKERFILE
        assert image.endswith(SERVICES[name]["build"]["target"])
    else:
        assert re.search(r":v?\d+\.\d+\.\d+(-\w+)?$", image)


def test_the_base_is_pinned() -> None:
    assert re.search(r"^ARG PYTHON=python:\d+\.\d+\.\d+-slim-bookworm$", DOCKERFILE, re.M)
    stages = set(re.findall(r"^FROM .* AS (\w+)$", DOCKERFILE, re.M))
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.M)) - stages == {"${PYTHON}", "scratch"}


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_the_loopback_address_only(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


def test_only_services_that_need_redis_reach_it() -> None:
    assert "ports" not in SERVICES["redis"]
    assert STACK["networks"]["store"] == {"internal": True}
    assert SERVICES["redis"]["networks"] == ["store"]
    on_store = {name for name in SERVICES if "store" in SERVICES[name].get("networks", [])}
    assert on_store == {"redis", "api", "scheduler", "nightly", "milvus"}
    config = (ROOT / "docker" / "redis.conf").read_text()
    assert "\nappendonly yes\n" in config
    assert "include /secrets/redis.conf" in config


def test_no_secret_is_in_the_files() -> None:
    assert not re.search(r"(?i)(password|secret|key): *['\"]?[\w-]{8,}", TEXT)
    assert SERVICES["api"]["environment"]["RE4_REDIS_PASSWORD_FILE"] == "/secrets/redis-password"


def test_each_secret_is_for_those_who_need_it() -> None:
    mounted = {(name, s) for name in SERVICES for s, _, _ in mounts(name) if "secrets" in s}
    for_redis = {(name, "redis-secrets") for name in ("redis", "api", "scheduler", "nightly")}
    provision = {("provision", s) for s in ("secrets", "redis-secrets", "grafana-secrets")}
    assert mounted == for_redis | provision | {("grafana", "grafana-secrets")}
    others = [mount for mount in mounted if mount[0] != "provision"]
    assert all((s, "/secrets", "ro") in mounts(name) for name, s in others)
    _, _, *folders = SERVICES["provision"]["command"]
    assert folders == ["/secrets", "/volumes/redis-secrets", "/volumes/grafana-secrets"]


def test_the_images_build_with_nothing_set() -> None:
    """The lock has a torch that only PyTorch's index has."""
    index = "https://download.pytorch.org/whl/cpu"
    assert "torch==2.13.0+cpu" in (ROOT / "docker/locks/server.txt").read_text()
    for name in ("provision", "api", "bootstrap", "scheduler"):
        assert SERVICES[name]["build"]["args"]["PIP_EXTRA_INDEX_URL"] == index
    assert f"ARG PIP_EXTRA_INDEX_URL={index}\n" in DOCKERFILE


def test_only_services_that_write_releases_can() -> None:
    writers = {n for n in SERVICES for s, _, mode in mounts(n) if s == "shop" and mode != "ro"}
    assert writers == {"provision", "bootstrap", "scheduler", "nightly"}


@pytest.mark.parametrize("name", SERVICES)
def test_its_settings_exist(name: str) -> None:
    environment = SERVICES[name].get("environment", {})
    given = {key for key in environment if key.startswith("RE4_")}
    former = {variable_of(option[2:].replace("-", "_")) for option in RENAMED_OPTIONS}
    assert given - former <= {*map(variable_of, Settings.model_fields)}
    assert not any(environment[key] for key in given & former), "passed on, to be refused"


@pytest.mark.parametrize("name", SERVICES)
def test_its_mounts_exist(name: str) -> None:
    for source, _, _ in mounts(name):
        if source.startswith("./"):
            assert (ROOT / source).exists()
        else:
            assert source in STACK["volumes"]


@pytest.mark.parametrize("name", SERVICES)
def test_every_script_that_it_runs_is_in_its_image(name: str) -> None:
    words = [str(word) for key in ("command", "entrypoint") for word in SERVICES[name].get(key, [])]
    for script in (word.removeprefix("/stack/") for word in words if word.startswith("/stack/")):
        if script.endswith(".py"):
            assert f"docker/{script}" in DOCKERFILE
        else:
            assert f"/stack/{script}" in [target for _, target, _ in mounts(name)]


def test_a_training_run_at_once_equals_a_scheduled_one() -> None:
    """`run --rm nightly`, which is not started otherwise, beside the scheduler."""
    scheduler, nightly = dict(SERVICES["scheduler"]), dict(SERVICES["nightly"])
    assert (nightly.pop("command"), nightly.pop("profiles")) == (["now"], ["night"])
    assert scheduler.pop("restart") == "unless-stopped"
    assert float(scheduler.pop("stop_grace_period").removesuffix("s")) >= 10
    assert scheduler == nightly
    assert "command" not in scheduler


def test_a_stop_waits_for_the_last_request() -> None:
    last_requests_s = int(
        re.search(r"_SHUTDOWN_TIMEOUT_S = (\d+)", (ROOT / "service/serving/server.py").read_text())[
            1
        ]
    )
    drain_s = float(SERVICES["api"]["environment"]["RE4_DRAIN_S"])
    assert float(SERVICES["api"]["stop_grace_period"].removesuffix("s")) > drain_s + last_requests_s


def test_each_service_waits_for_its_dependencies() -> None:
    done, healthy = "service_completed_successfully", "service_healthy"
    api = SERVICES["api"]["depends_on"]
    assert api == {"bootstrap": {"condition": done}, "redis": {"condition": healthy}}
    assert "/readyz" in str(SERVICES["api"]["healthcheck"]["test"])
    assert "healthcheck" in SERVICES["redis"]


def test_the_gpu_is_for_the_api() -> None:
    override = yaml.safe_load((ROOT / "docker-compose.gpu.yml").read_text().replace("$", ""))
    assert set(override["services"]) == {"api"}
    api = override["services"]["api"]
    assert (ROOT / "docker" / "locks" / f"{api['build']['args']['LOCK']}.txt").exists()
    device = api["deploy"]["resources"]["reservations"]["devices"][0]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert device["count"] == 1
    assert Settings(releases=ROOT, device=api["environment"]["RE4_DEVICE"]).device == "cuda:0"


def test_the_milvus_is_started_by_its_profile_and_used_by_the_override() -> None:
    override = yaml.safe_load((ROOT / "docker-compose.milvus.yml").read_text())
    assert set(override["services"]) == {"api", "scheduler"}
    for service in override["services"].values():
        assert (ROOT / "docker" / "locks" / f"{service['build']['args']['LOCK']}.txt").exists()
    given = override["services"]["api"]["environment"]
    chosen = Settings(releases=ROOT, engine=given["RE4_ENGINE"], engine_uri=given["RE4_ENGINE_URI"])
    assert chosen.engine_uri is not None
    assert chosen.engine_uri.get_secret_value() == "http://milvus:19530"
    assert SERVICES["milvus"]["profiles"] == ["milvus"]
    assert "ports" not in SERVICES["milvus"]


@pytest.mark.parametrize("path", ["docker/night.toml", "docker/k8s/base/night.toml"])
def test_the_settings_of_the_training_runs_are_valid(path: str) -> None:
    config = read_night_config(ROOT / path, [])
    assert str(config.root) == "/shop"
    assert config.events.is_relative_to(config.root)
