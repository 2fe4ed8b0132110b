"""The programs of the stack, loaded from their files, as they are no package."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from prometheus_client import CollectorRegistry

DOCKER = Path(__file__).parents[2] / "docker"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"stack_{name}", DOCKER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def schedule() -> ModuleType:
    return load("schedule")


@pytest.fixture(scope="session")
def provision() -> ModuleType:
    return load("provision")


@pytest.fixture(scope="session")
def bootstrap() -> ModuleType:
    return load("bootstrap")


@pytest.fixture(scope="session")
def traffic() -> ModuleType:
    return load("traffic")


OUTCOMES = [
    {"outcome": "published", "ended": 100.0, "seconds": 30.0, "code": 0, "exported": {"lost": 3}}
    | {"new_recall@50": 0.4, "live_recall@50": 0.3, "popular_recall@50": 0.1},
    {"outcome": "running", "ended": 150.0, "seconds": 0.1, "code": 5, "exported": {}},
    {"outcome": "failed", "ended": 200.0, "seconds": 2.0, "code": 1, "exported": {}},
]


@pytest.fixture
def training_runs(schedule: ModuleType, tmp_path: Path) -> CollectorRegistry:
    """Metrics of three training runs; the second found another one running."""
    path = tmp_path / "nights.jsonl"
    path.write_text("".join(json.dumps(outcome) + "\n" for outcome in OUTCOMES) + '{"cut sho')
    registry = CollectorRegistry()
    registry.register(schedule.TrainingRuns(path))
    return registry
