"""The server answers without what only the trainer image has."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from index.encoders import ENCODERS
from service.settings import PREFIX
from tests.evidence.releases import SPECS, point, write_release

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
MOVED = [
    part.replace("/", ".") for part in re.search(r"for part in ([^;]*);", DOCKERFILE)[1].split()
]
TRAINER_ONLY = [
    "httpx",
    "tenacity",
    "matplotlib",
    "scipy",
    "sklearn",
    "tqdm",
    "tabulate",
    "training",
]
WITHOUT = """
import runpy, sys

absent = set(sys.argv[1:])
del sys.argv[1:]

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in absent:
            raise ModuleNotFoundError(f"{name}: not in the server image", name=name)

sys.meta_path.insert(0, Absent())
runpy.run_module(PROGRAM, run_name="__main__") if PROGRAM != "-" else exec(sys.stdin.read())
"""


def command(program: str) -> list[str]:
    """Python without the modules that the server image lacks."""
    code = WITHOUT.replace("PROGRAM", repr(program))
    return [sys.executable, "-c", code, *MOVED, *TRAINER_ONLY]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Releases of each encoder and of each kind of index."""
    root = tmp_path_factory.mktemp("root")
    for encoder in ENCODERS:
        write_release(root, encoder, encoder_name=encoder)
    for kind in SPECS:
        write_release(root, kind, kind)
    point(root, "re4")
    return root


@pytest.fixture(scope="module")
def url(root: Path) -> Iterator[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    with tempfile.TemporaryDirectory(prefix="re4-") as history:
        options = {
            "releases": root, "embedded_redis_folder": history, "port": 0, "drain_s": 0,
            "deadline_ms": 5000, "redis_timeout_ms": 5000, "reload_interval_s": 0.1,
            "tracing": "otlp",
        }  # fmt: skip
        process = subprocess.Popen(
            command("service"),
            env=environment | {PREFIX + name.upper(): str(v) for name, v in options.items()},
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        try:
            lines = (json.loads(line) for line in process.stderr)
            port = next(line["port"] for line in lines if line["event"] == "listening")
            next(line for line in lines if line["event"] == "release loaded")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.communicate(timeout=60)


@pytest.mark.parametrize("release", [*ENCODERS, *SPECS])
def test_the_server_answers_from_each_kind_of_release(root: Path, url: str, release: str) -> None:
    point(root, release)
    end = time.monotonic() + 120
    while httpx.get(f"{url}/release", timeout=60).json()["release"]["id"] != release:
        assert time.monotonic() < end
        time.sleep(0.02)
    response = httpx.post(f"{url}/recommend", json={"sequence": ["item-1", "item-2"], "k": 5})
    assert response.status_code == 200
    assert len(response.json()["items"]) == 5


def test_the_documentation_is_in_the_image(url: str) -> None:
    page = httpx.get(f"{url}/docs").text
    for path in re.findall(r"(?:src|href)=\"(/[^\"]+)\"", page):
        assert httpx.get(url + path).status_code == 200
    assert "swagger" in page.lower()


def test_what_is_compiled_can_be_imported() -> None:
    """The build compiles what this line imports, so it ends if anything was moved too far."""
    [line] = re.findall(r"/venv/bin/python -c '([^']*)'", DOCKERFILE)
    subprocess.run(command("-"), input=line.strip(), text=True, check=True)


def test_programs_are_found_whatever_the_base_sets() -> None:
    path = re.search(r"^ENV PATH=(\S+)", DOCKERFILE, re.M)[1].split(":")
    assert path[0] == "/venv/bin"
    assert {"/usr/local/bin", "/usr/bin", "/bin"} < set(path)
