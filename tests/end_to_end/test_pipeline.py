"""Log -> Re4 -> draft -> index -> release -> server -> POST /recommend, each by its own command."""

import json
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from training.data.packed_log import prepare
from training.data.readers import read_log
from training.evaluation.protocols import split_log

FIT = ["--dim", "16", "--interests", "4", "--hidden", "32", "--negatives", "200", "--epochs", "3"]


def run(*arguments: object) -> str:
    """The last line that the command printed."""
    done = subprocess.run(
        [sys.executable, "-m", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[Path]]:
    """Folder with the log, root, and two built drafts of different seeds."""
    folder = tmp_path_factory.mktemp("pipeline")
    log = run("training", "synthetic", "--out", folder, "--users", 400, "--items", 200)
    root = folder / "root"
    drafts = []
    for seed in (0, 1):
        items = folder / "items.parquet"
        fit = ["training", "fit", log, "--root", root, "--items", items, "--seed", seed]
        drafts.append(Path(run(*fit, *FIT)))
        run("index", "build", drafts[-1])
    return Path(log), root, drafts


@pytest.fixture(scope="module")
def served(built: tuple[Path, Path, list[Path]]) -> Iterator[str]:
    """URL of a server of the first draft, published."""
    _, root, drafts = built
    release = Path(run("index", "publish", drafts[0]))
    assert release.parent == root / "releases"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    serve = [sys.executable, "-m", "service", "--releases", str(root), "--port", str(port)]
    serve += ["--reload-interval-s", "0.1", "--drain-s", "0"]
    serve += ["--deadline-ms", "10000"]  # other tests run beside it
    server = subprocess.Popen(serve, stderr=subprocess.PIPE)
    try:
        for _ in range(300):
            try:
                if httpx.get(f"{url}/readyz").status_code == 200:
                    break
            except httpx.TransportError:
                assert server.poll() is None, "the server ended"
            time.sleep(0.1)
        yield url
    finally:
        server.terminate()
        server.communicate(timeout=30)


def test_http_gives_the_recall_that_evaluate_gives(built, served):
    log_path, _, drafts = built
    offline = json.loads(run("training", "evaluate", drafts[0], log_path))
    catalog, log = prepare(read_log(log_path))
    split = split_log("unseen-users", log, len(catalog), 0.1, 0)
    hits = wanted = 0.0
    with httpx.Client(base_url=served) as client:
        for case in split.test:
            body = {"sequence": [catalog.id(row) for row in case.history], "k": 20}
            answer = client.post("/recommend", json=body).json()
            found = {item["item_id"] for item in answer["items"]}
            relevant = {catalog.id(row) for row in case.relevant}
            hits += len(found & relevant) / len(relevant)
            wanted += 1
    assert wanted == offline["users"]
    assert hits / wanted == pytest.approx(offline["recall@20"], abs=5e-4)


def test_the_example_request_is_answered_with_interests(built, served):
    words = shlex.split(run("index", "example", "--root", built[1], "--url", served))
    assert words[:2] == ["curl", "-s"]
    answer = httpx.post(words[2], content=words[-1], headers={"content-type": "application/json"})
    assert answer.json()["source"] == "interests"
    assert len(answer.json()["items"]) == 5


def test_evaluate_gives_a_release_what_it_gives_the_draft(built, served):
    log_path, root, drafts = built
    draft, release = (
        json.loads(run("training", "evaluate", folder, log_path))
        for folder in (drafts[0], root / "releases" / drafts[0].name)
    )
    assert draft == release


def test_an_item_announced_with_a_title_is_offered(built, served):
    catalog, _ = prepare(read_log(built[0]))
    body = {"sequence": [catalog.id(row) for row in (3, 1, 2)], "k": 10, "min_new_items": 1}
    said = {"available": True, "title": "Aurora trail running shoes", "categories": ["Running"]}
    with httpx.Client(base_url=served) as client:
        assert client.put("/items/aurora", json=said).json()["changed"]
        for _ in range(100):
            items = client.post("/recommend", json={**body, "include": ["title"]}).json()["items"]
            if new := [item for item in items if item.get("new")]:
                break
            time.sleep(0.1)
        client.put("/items/aurora", json={"available": False})
        after = client.post("/recommend", json=body).json()["items"]
    assert [(item["item_id"], item["attributes"]) for item in new] == [
        ("aurora", {"title": said["title"]})
    ]
    assert not any(item.get("new") for item in after)


def test_publish_and_rollback_while_requests_run(built, served):
    _, root, drafts = built
    first, second = (draft.name for draft in drafts)
    catalog, _ = prepare(read_log(built[0]))
    body = {"sequence": [catalog.id(row) for row in (3, 1, 2)], "k": 10}
    answers: list[tuple[int, str, tuple[str, ...]]] = []
    stop = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=served) as client:
            while not stop.is_set():
                response = client.post("/recommend", json=body)
                told = response.json()
                items = tuple(item["item_id"] for item in told.get("items", ()))
                answers.append((response.status_code, told.get("release", ""), items))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for command in (["publish", drafts[1], "--force"], ["rollback", "--root", root]):
            run("index", *command)
            expected = second if command[0] == "publish" else first
            for _ in range(100):
                if answers[-1][1] == expected:
                    break
                time.sleep(0.1)
            assert answers[-1][1] == expected
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert {status for status, _, _ in answers} == {200}
    by_release: dict[str, set[tuple[str, ...]]] = {}
    for _, release, items in answers:
        by_release.setdefault(release, set()).add(items)
    # Each release has one answer to this request, and never the other's.
    assert {release: len(given) for release, given in by_release.items()} == {first: 1, second: 1}
    assert by_release[first] != by_release[second]


def test_a_fit_killed_at_any_moment_ends_with_the_metrics_of_an_unbroken_one(built, tmp_path):
    log_path, _, drafts = built
    unbroken = json.loads((drafts[0] / "manifest.json").read_text())["metrics"]
    fit = [sys.executable, "-m", "training", "fit", str(log_path), "--root", str(tmp_path)]
    fit += ["--items", str(log_path.with_name("items.parquet")), "--seed", "0", *FIT]
    for _ in range(2):
        process = subprocess.Popen(fit, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        working = tmp_path / "drafts"
        before = _checkpoints(working)
        while process.poll() is None and _checkpoints(working) == before:
            time.sleep(0.01)
        process.kill()
        process.communicate()
    assert not [path for path in working.iterdir() if not path.name.startswith(".")]
    draft = Path(run(*fit[2:]))
    assert json.loads((draft / "manifest.json").read_text())["metrics"] == unbroken
    assert [path.name for path in working.iterdir()] == [draft.name]


def _checkpoints(drafts: Path) -> list[tuple[str, int]]:
    return [(str(path), path.stat().st_mtime_ns) for path in drafts.glob(".fit-*/*/*.safetensors")]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "empty"),
        ("user_id,item_id,timestamp\n", "header"),
        ("user_id,thing,timestamp\nu,i,1\n", "item_id"),
        ("user_id,item_id,timestamp\nu,i,1\nu,j,soon\n", "line 3"),
        ("user_id,item_id,timestamp\nu,i,1\nv,,2\n", "line 3"),
        (f"user_id,item_id,timestamp\nu,{'x' * 10_000},1\n", "line 2"),
        ("user_id,item_id,timestamp\n" + "".join(f"u{n},i,{n}\n" for n in range(9)), "5"),
    ],
)
def test_a_refused_log_is_one_sentence_and_leaves_nothing(tmp_path, content, sentence):
    log = tmp_path / "log.csv"
    log.write_text(content)
    root = tmp_path / "root"
    words = [sys.executable, "-m", "training", "fit", str(log), "--root", str(root)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr.startswith("Error: ")
    assert len(done.stderr.splitlines()) == 1
    assert sentence in done.stderr
    assert not root.exists() or not any(root.rglob("*"))
