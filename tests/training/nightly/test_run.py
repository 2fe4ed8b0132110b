"""The night: what it publishes and refuses, what it does twice and never, and whom it tells."""

import fcntl
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from index.release.manifest import ENCODER, digest, read_manifest, write_manifest
from index.release.publish import rollback
from index.release.reading import open_release, read_current
from training.__main__ import main as training_cli
from training.config import ConfigError
from training.data.event_window import DAY_S
from training.data.synthetic import write_synthetic
from training.nightly.config import NightConfig, read_night
from training.nightly.run import NIGHTS, Outcome, nightly

FIT = {"dim": 16, "interests": 2, "hidden": 16, "negatives": 100, "epochs": 6, "batch_size": 64}
NIGHT = {"metric": "recall@20", "held_out_days": 12, "min_cases": 10, "plots": False}
FIRST = 1_735_689_600
SOON, LATER = FIRST + 100 * DAY_S, FIRST + 112 * DAY_S  # the ends of two nights


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def export(table: pa.Table, events: Path) -> None:
    days = table["timestamp"].to_numpy() // 86_400
    for day in np.unique(days):
        folder = events / f"date={np.datetime64(int(day), 'D')}"
        folder.mkdir(parents=True)
        pq.write_table(table.filter(pa.array(days == day)), folder / "part-0.parquet")


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    folder = tmp_path_factory.mktemp("log")
    write_synthetic(folder, users=300, items=150, seed=1)
    return pq.read_table(folder / "interactions.parquet")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, log: pa.Table) -> tuple[Path, Outcome]:
    """A folder with the events, and the root after the first night; and how that ended."""
    folder = tmp_path_factory.mktemp("first")
    export(log, folder / "events")
    return folder, nightly(config_of(folder, until=SOON, plots=True))


@pytest.fixture
def folder(first: tuple[Path, Outcome], tmp_path: Path) -> Path:
    """As after the first night, for a test to change."""
    return Path(shutil.copytree(first[0], tmp_path / "copy"))


def config_of(folder: Path, until: float = LATER, **settings: Any) -> NightConfig:
    fit = {**FIT, **settings.pop("fit", {})}
    warm = {"epochs": 1, **settings.pop("warm", {})}
    given = {"root": folder / "root", "events": folder / "events", "until": until}
    return NightConfig(**{**NIGHT, **given, **settings, "fit": fit, "warm": warm})


def live(folder: Path) -> str:
    """The release that is live, and opens."""
    current = read_current(folder / "root")
    assert current is not None
    return open_release(folder / "root" / "releases" / current).id


def killed_at(folder: Path, step: str) -> None:
    """The second night, ended just before a step."""

    def say(text: str) -> None:
        if text == step:
            raise Killed

    with pytest.raises(Killed):
        nightly(config_of(folder), say)


# --- a good night ---


def test_the_first_night_publishes_and_reports_on_one_page(first):
    folder, outcome = first
    assert outcome.outcome == "published", outcome.sentence
    assert outcome.release == live(folder)
    assert outcome.details["new_recall@20"] > 2 * outcome.details["popular_recall@20"]
    assert "live_recall@20" not in outcome.details
    assert outcome.night is not None
    night = folder / "root" / NIGHTS / outcome.night
    names = {path.name for path in night.iterdir()}
    plots = {"curves.png", "metrics.png", "days.png"}
    assert names == {"state.json", "report.md", "report.json", *plots}
    page = (night / "report.md").read_text()
    for told in ("**Window.**", "**Drift.**", "cold", "**Index.**", "**Gate.** passed", *plots):
        assert told in page
    report = json.loads((night / "report.json").read_text())
    assert report["outcome"] == "published"
    assert report["window"]["counts"]["after_the_window"] > 0
    assert not list((folder / "root" / "drafts").iterdir())


def test_the_second_starts_warm_is_compared_on_one_day_and_is_not_done_twice(folder):
    before = live(folder)
    outcome = nightly(config_of(folder))
    assert outcome.outcome == "published", outcome.sentence
    assert outcome.live == before
    manifest = read_manifest(folder / "root" / "releases" / live(folder))
    assert manifest.parent == before
    assert manifest.metrics["night"]["recall@20"] == outcome.details["new_recall@20"]
    assert manifest.data.last < LATER
    assert outcome.night is not None
    report = json.loads((folder / "root" / NIGHTS / outcome.night / "report.json").read_text())
    assert report["steps"]["fit"]["warm"]
    assert report["steps"]["fit"]["encoder"]
    assert report["steps"]["fit"]["history"][0]["epoch"] == 0
    assert report["steps"]["judge"]["users"] == report["window"]["judges"]
    assert report["window"]["since"] > SOON - DAY_S
    page = (folder / "root" / NIGHTS / outcome.night / "report.md").read_text()
    assert "then 1 epoch with the held-out day and 2 over it alone" in page
    state = (folder / "root" / NIGHTS / outcome.night / "state.json").read_bytes()
    said: list[str] = []
    again = nightly(config_of(folder), said.append)
    assert again.outcome == "nothing-new"
    assert "since this night was published" in again.sentence
    assert said == ["read"]
    assert (folder / "root" / NIGHTS / outcome.night / "state.json").read_bytes() == state


def test_cold_is_from_scratch(folder):
    outcome = nightly(config_of(folder, cold=True, refit_epochs=0, fit={"epochs": 1}))
    assert outcome.night is not None
    report = json.loads((folder / "root" / NIGHTS / outcome.night / "report.json").read_text())
    assert not report["steps"]["fit"]["warm"]
    assert report["steps"]["fit"]["history"][0]["epoch"] == 1
    assert report["steps"]["refit"]["history"] == report["steps"]["fit"]["history"]


@pytest.mark.parametrize("cold", [False, True])
def test_an_open_number_of_interests_is_kept_by_a_warm_night_and_chosen_by_a_cold(folder, cold):
    begun = read_manifest(folder / "root" / "releases" / live(folder)).training["interests"]
    fit = {"interests": None, "epochs": 1}
    outcome = nightly(config_of(folder, cold=cold, refit_epochs=0, fit=fit))
    assert outcome.night is not None
    report = json.loads((folder / "root" / NIGHTS / outcome.night / "report.json").read_text())
    assert report["steps"]["fit"]["encoder"] is not cold
    assert (report["steps"]["fit"]["interests"] == begun) is not cold
    assert begun not in (1, 8)


def test_vectors_of_another_length_are_no_warm_start(folder):
    outcome = nightly(config_of(folder, fit={"dim": 24, "epochs": 1}))
    assert outcome.night is not None
    report = json.loads((folder / "root" / NIGHTS / outcome.night / "report.json").read_text())
    assert not report["steps"]["fit"]["warm"]


# --- bad nights ---


def refused(folder: Path, outcome: Outcome, before: str, *sentences: str) -> None:
    assert outcome.outcome == "refused", outcome.sentence
    assert "\n" not in outcome.sentence
    for sentence in sentences:
        assert sentence in outcome.sentence
    assert live(folder) == before
    assert outcome.night is not None
    page = (folder / "root" / NIGHTS / outcome.night / "report.md").read_text()
    assert outcome.sentence in page


def bad_events(folder: Path, log: pa.Table) -> None:
    shutil.rmtree(folder / "events")
    export(log, folder / "events")


def test_shuffled_labels_are_refused(folder, log):
    before = live(folder)
    items = log["item_id"].take(pa.array(np.random.default_rng(0).permutation(len(log))))
    bad_events(folder, log.set_column(1, "item_id", items))
    outcome = nightly(config_of(folder))
    refused(folder, outcome, before, "recall@20", "check that the events name the items")


def test_a_worse_model_is_refused(folder):
    before = live(folder)
    slow = {"learning_rate": 1e-9, "epochs": 1}
    outcome = nightly(config_of(folder, cold=True, fit=slow, refit_epochs=0))
    refused(
        folder, outcome, before, "recall@20 (night) is 0.", f"of the live {before}", "is allowed"
    )
    assert nightly(config_of(folder, cold=True, fit=slow, refit_epochs=0)).exit_code == 4


def test_half_the_catalogue_gone_is_refused(folder, log):
    before = live(folder)
    items = log["item_id"].to_pylist()
    stay = [hash_of(item) % 2 == 0 for item in items]
    bad_events(folder, log.filter(pa.array(stay)))
    outcome = nightly(config_of(folder, fit={"min_user_interactions": 2}, min_cases=5))
    refused(folder, outcome, before, "the catalogue has", "a change of 20.0% is allowed")


def hash_of(item: str) -> int:
    return int(item.rpartition("-")[2])


def test_an_empty_day_is_nothing_new(folder):
    before = live(folder)
    outcome = nightly(config_of(folder, until=SOON + DAY_S / 8))
    assert outcome.exit_code == 4
    assert "users to compare on, where 10 are needed" in outcome.sentence
    shutil.rmtree(folder / "events")
    outcome = nightly(config_of(folder))
    assert "no event is in the window" in outcome.sentence
    assert live(folder) == before


def test_a_weight_that_is_no_number_is_refused(folder):
    before = live(folder)
    killed_at(folder, "build")
    (draft,) = (folder / "root" / "drafts").iterdir()
    weights = load_file(draft / ENCODER)
    name = next(name for name in weights if name.endswith("project.weight"))
    weights[name] = weights[name].clone().fill_(float("nan"))
    save_file(weights, draft / ENCODER)
    manifest = read_manifest(draft)
    files = {**manifest.files, ENCODER: digest(draft / ENCODER)}
    write_manifest(draft, manifest.model_copy(update={"files": files}))
    refused(folder, nightly(config_of(folder)), before, "weights that are not finite")


def test_a_fit_that_diverges_is_refused(folder):
    before = live(folder)
    outcome = nightly(config_of(folder, cold=True, fit={"learning_rate": 1e18}))
    refused(folder, outcome, before, "learning rate below")


def publish_another(folder: Path) -> None:
    root = folder / "root"
    other = shutil.copytree(root / "releases" / live(folder), root / "releases" / "other")
    manifest = read_manifest(other)
    write_manifest(other, manifest.model_copy(update={"id": "other"}))
    (root / "current").write_text("other\n")


def test_another_release_that_is_live_by_now_is_not_written_over(folder):
    """The night has failed, and the next begins anew, against that one."""

    def say(text: str) -> None:
        if text == "publish":
            publish_another(folder)

    outcome = nightly(config_of(folder), say)
    assert outcome.exit_code == 1
    assert "other is live now; compare again" in outcome.sentence
    assert live(folder) == "other"
    again = nightly(config_of(folder))
    assert (again.outcome, again.live) == ("published", "other")
    assert again.night == outcome.night


def test_what_was_rolled_back_stays_so_when_its_night_goes_on(folder, monkeypatch):
    before = live(folder)
    monkeypatch.setattr("training.nightly.run._report", killed)
    with pytest.raises(Killed):
        nightly(config_of(folder))
    assert live(folder) != before
    rollback(folder / "root")
    monkeypatch.undo()
    outcome = nightly(config_of(folder))
    assert outcome.outcome == "nothing-new"
    assert "since this night was published" in outcome.sentence
    assert live(folder) == before


def test_nor_is_it_published_again_where_the_night_does_not_know_that_it_was(folder, monkeypatch):
    before = live(folder)
    monkeypatch.setattr(
        "index.release.publish._prune", killed
    )  # `current` is written, the step is not
    with pytest.raises(Killed):
        nightly(config_of(folder))
    monkeypatch.undo()
    rollback(folder / "root")
    refused(folder, nightly(config_of(folder)), before, "is live no more")


def killed(*_: object) -> None:
    raise Killed


def test_a_live_release_that_is_damaged_fails_the_night(folder):
    release = folder / "root" / "releases" / live(folder)
    (release / ENCODER).write_bytes(b"")
    outcome = nightly(config_of(folder))
    assert outcome.exit_code == 1
    assert ENCODER in outcome.sentence


def test_a_full_disk_fails_the_night_and_the_next_run_goes_on(folder, monkeypatch):
    """It is no judgement of what was made."""

    def half(index: Any, path: Path) -> None:
        path.write_bytes(b"half")

    with monkeypatch.context() as patch:
        patch.setattr("index.ann.flat.FlatIndex.write", half)
        patch.setattr("index.ann.ivf.IvfIndex.write", half)
        outcome = nightly(config_of(folder))
    assert outcome.exit_code == 1, outcome.sentence
    assert "items.faiss cannot be written" in outcome.sentence
    said: list[str] = []
    assert nightly(config_of(folder), said.append).outcome == "published"
    assert said == ["build", "publish"]


def test_too_few_of_each_to_train_on_is_refused(folder):
    before = live(folder)
    refused(
        folder,
        nightly(config_of(folder, fit={"min_user_interactions": 10**6})),
        before,
        "interactions",
    )


def test_a_time_that_is_none_spoils_no_report(folder, log):
    odd = log.slice(0, 20).set_column(2, "timestamp", pa.array([-(10**12)] * 20, pa.float64()))
    path = folder / "events" / "date=odd"
    path.mkdir()
    pq.write_table(odd, path / "odd.parquet")
    outcome = nightly(config_of(folder, plots=True))
    assert outcome.outcome == "published", outcome.sentence
    page = folder / "root" / NIGHTS / str(outcome.night) / "report.md"
    assert "-1e+12 to 20" in page.read_text()
    assert (page.parent / "days.png").exists()


def test_a_report_says_what_was_asked_for_what_serves_and_what_was_never_judged(folder, log):
    before = live(folder)
    items = log["item_id"].take(pa.array(np.random.default_rng(0).permutation(len(log))))
    bad_events(folder, log.set_column(1, "item_id", items))
    outcome = nightly(config_of(folder, until=SOON + 6 * DAY_S))
    page = (folder / "root" / NIGHTS / str(outcome.night) / "report.md").read_text()
    assert f"Live now: {before}." in page
    assert "recall@20 at most" in page
    assert "new to the live release" not in page
    outcome = nightly(config_of(folder, held_out_days=3, min_cases=5))
    page = (folder / "root" / NIGHTS / str(outcome.night) / "report.md").read_text()
    assert "events before that are new to the live release" in page
    told = json.loads((folder / "root" / NIGHTS / "last.json").read_text())
    assert (told["night"], told["outcome"]) == (outcome.night, outcome.outcome)


# --- one at a time, once ---


def test_a_second_night_is_refused_while_one_is_at_work(folder):
    with (folder / "root" / NIGHTS / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        outcome = nightly(config_of(folder))
    assert outcome.exit_code == 5
    assert "a night is at work" in outcome.sentence
    assert len(outcome.sentence.splitlines()) == 1


def test_a_finished_step_is_never_done_again(folder):
    steps = ["fit", "judge", "refit", "draft", "build", "publish"]
    for number, step in enumerate(steps):
        said: list[str] = []

        def say(text: str, last: str = step, said: list[str] = said) -> None:
            said.append(text)
            if text == last:
                raise Killed

        with pytest.raises(Killed):
            nightly(config_of(folder), say)
        assert said == (["read", "fit"] if number == 0 else steps[number - 1 : number + 1])
    assert nightly(config_of(folder)).outcome == "published"


def test_what_was_cut_short_goes_on_with_the_data_it_began_with(folder, log):
    killed_at(folder, "judge")
    late = log.slice(0, 1).set_column(2, "timestamp", pa.array([int(LATER) - 1]))
    export(late, folder / "events" / "date=later")
    (file,) = (folder / "events" / "date=later").rglob("*.parquet")
    file.rename(folder / "events" / "date=later" / "part-0.parquet")
    (unfinished,) = (p for p in (folder / "root" / NIGHTS).iterdir() if (p / "fit").exists())
    assert nightly(config_of(folder)).night == unfinished.name


def test_what_was_cut_short_long_ago_or_with_other_settings_is_given_up(folder):
    killed_at(folder, "judge")
    (unfinished,) = (p for p in (folder / "root" / NIGHTS).iterdir() if (p / "fit").exists())
    outcome = nightly(config_of(folder, refit_epochs=2))
    assert outcome.outcome == "published"
    assert outcome.night != unfinished.name
    assert json.loads((unfinished / "state.json").read_text())["ended"]["outcome"] == "given up"
    assert not (unfinished / "fit").exists()


def test_what_was_given_up_is_done_from_the_beginning(folder):
    killed_at(folder, "build")
    (unfinished,) = (p for p in (folder / "root" / NIGHTS).iterdir() if (p / "fit").exists())
    said: list[str] = []
    outcome = nightly(config_of(folder, resume_h=0), said.append)
    assert outcome.outcome == "published", outcome.sentence
    assert outcome.night == unfinished.name
    assert said[:2] == ["read", "fit"]


def test_a_record_that_cannot_be_read_bars_no_night(folder):
    killed_at(folder, "judge")
    (unfinished,) = (p for p in (folder / "root" / NIGHTS).iterdir() if (p / "fit").exists())
    (unfinished / "state.json").write_text("")
    assert nightly(config_of(folder)).outcome == "published"


def test_whatever_breaks_somebody_is_told(folder, receiver, monkeypatch):
    url, kind = receiver
    monkeypatch.setattr("training.nightly.run._sweep", lambda *_: 1 / 0)
    outcome = nightly(config_of(folder, webhook=url))
    assert (outcome.outcome, outcome.sentence) == ("failed", "ZeroDivisionError: division by zero")
    assert kind.taken == [outcome.to_json()]


def test_a_window_that_is_lost_fails_the_night_in_one_sentence(folder):
    killed_at(folder, "judge")
    (unfinished,) = (p for p in (folder / "root" / NIGHTS).iterdir() if (p / "fit").exists())
    (unfinished / "window.parquet").write_bytes(b"")
    said: list[str] = []
    outcome = nightly(config_of(folder), said.append)
    assert outcome.outcome == "failed"
    assert "window.parquet" in outcome.sentence


def test_a_night_that_is_killed_anywhere_ends_as_if_it_had_not_been():
    program = Path(__file__).parents[2] / "evidence" / "night_kills.py"
    arguments = ["--boundaries", "4", "--random", "3"]
    ended = subprocess.run(
        [sys.executable, program, *arguments], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout.splitlines()[-1])["kills"] > 4


# --- who is told ---


class Receiver(BaseHTTPRequestHandler):
    """Fails as often as `failures` says, then takes what is posted."""

    failures = 0
    taken: list[dict[str, Any]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        kind = type(self)
        self.send_response(503 if kind.failures else 204)
        if not kind.failures:
            kind.taken.append(json.loads(body))
        kind.failures -= bool(kind.failures)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[tuple[str, type[Receiver]]]:
    kind = type("Kind", (Receiver,), {"taken": []})
    server = HTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/secret", kind
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_webhook_is_tried_again_and_gets_the_outcome(folder, receiver):
    url, kind = receiver
    kind.failures = 2
    outcome = nightly(config_of(folder, until=SOON, webhook=url))
    assert kind.taken == [outcome.to_json()]


def test_a_command_gets_the_outcome_on_its_input(folder, tmp_path):
    out = tmp_path / "told"
    outcome = nightly(config_of(folder, until=SOON, command=f"tee {out}"))
    assert json.loads(out.read_text()) == outcome.to_json()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"webhook": "http://127.0.0.1:9/secret"}, "webhook at 127.0.0.1: 1 attempts failed"),
        ({"webhook": "no address"}, "webhook"),
        ({"command": "false"}, "command: ended with 1"),
        ({"command": "/no/such/program"}, "command: could not be run (FileNotFoundError)"),
        ({"command": "sleep 60"}, "command: not done after 0.5 s, and ended"),
        ({"command": "'"}, "command: could not be run (ValueError)"),
    ],
)
def test_a_hook_that_fails_fails_no_night(folder, settings, said):
    heard: list[str] = []
    config = config_of(folder, until=SOON, hook_attempts=1, hook_timeout_s=0.5, **settings)
    assert nightly(config, heard.append).exit_code == 4
    assert any(text.startswith(said) for text in heard), heard
    assert not any("secret" in text for text in heard)


def test_who_need_not_be_told_is_not(folder, receiver):
    url, kind = receiver
    nightly(config_of(folder, until=SOON, webhook=url, tell=("failed",)))
    assert kind.taken == []


# --- settings and the command ---


def test_settings_come_from_the_file_and_then_the_command_line(tmp_path):
    toml = tmp_path / "night.toml"
    toml.write_text('root = "a"\nevents = "b"\nkeep = 7\n[fit]\ndim = 32\nepochs = 9\n')
    overrides = [("keep", 3), ("fit.epochs", 2), ("warm.patience", 1), ("until", "2026-01-02")]
    config = read_night(toml, overrides)
    assert (config.root, config.keep, config.cold) == (Path("a"), 3, False)
    cold, warm = config.fit_config(warm=False), config.fit_config(warm=True)
    assert (cold.dim, cold.epochs, cold.split) == (32, 2, "temporal")
    assert (cold.patience, warm.patience) == (3, 1)
    toml.write_text('root = "a"\nevents = "b"\nuntil = 2026-01-02T00:00:00Z\n')
    assert read_night(toml, []).until == 1_767_312_000
    assert read_night(toml, [("until", "2026-01-02T00:00:00Z")]).until == 1_767_312_000
    toml.write_text('root = "a"\nevents = "b"\nuntil = 2026-01-02\n')
    assert read_night(toml, []).until == read_night(toml, [("until", "2026-01-02")]).until


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (("kep", 3), "kep: Extra inputs are not permitted; known are"),
        (("keep", 0), "keep: Input should be greater than or equal to 1"),
        (("fit.dimm", 3), "dimm"),
        (("keep.x", 3), "keep: |keep has no settings"),
        (("until", "soon"), "until"),
        (("warm.patience", "long"), "warm: patience"),
        (("warm.dim", 48), "warm: dim is of the model, which goes on; set it in fit"),
        (("fit.encoder", "none"), "fit: encoder = 'none': choose one of re4, "),
        (("fit.encoder", ["re4"]), "fit: encoder"),
        (("fit.heads", 3), "fit: heads = 3 does not divide dim = 64"),
        (("fit.pretrain_epochs", 30), "fit: epochs = 30 leaves none to choose from"),
        (("command", ""), "command"),
        (("webhook", ""), "webhook"),
        (("root", ""), "root: Value error, name a file or folder"),
        (("until", float("nan")), "until"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(tmp_path, override, said):
    toml = tmp_path / "night.toml"
    encoder = "sasrec" if override[0] == "fit.heads" else "re4"
    toml.write_text(f'root = "a"\nevents = "b"\nkeep = 7\n[fit]\nencoder = "{encoder}"\n')
    with pytest.raises(ConfigError, match=said):
        read_night(toml, [override])


def test_the_command_says_how_it_ended(folder: Path, tmp_path: Path) -> None:
    toml = tmp_path / "night.toml"
    toml.write_text(f'root = "{folder / "root"}"\nevents = "{folder / "events"}"\nuntil = {SOON}\n')
    done = CliRunner().invoke(training_cli, ["nightly", "--config", str(toml)])
    told = json.loads(done.stdout.splitlines()[-1])
    assert done.exit_code == {"published": 0, "refused": 3, "nothing-new": 4}[told["outcome"]]
    assert done.stderr.splitlines()[-1] == told["sentence"]
    wrong = CliRunner().invoke(training_cli, ["nightly", "--set", "kep=3"])
    assert wrong.exit_code == 1
    assert "Error: " in wrong.stderr
