"""The folder of a fit's checkpoints: removed when the fit is complete, or is not continued."""

import fcntl
import os
import time
from pathlib import Path

import pytest

from training.config import ConfigError
from training.fitting.working_folder import KEPT_DAYS, remove_abandoned_fits, working_folder

DAY_S = 86_400


def killed_fit(drafts: Path, name: str, days: float) -> Path:
    """As a fit leaves it that was killed so long ago."""
    folder = drafts / f".fit-{name}"
    (folder / "K=1").mkdir(parents=True)
    then = time.time() - days * DAY_S
    for path in (folder / "lock", folder / "K=1" / "checkpoint.safetensors"):
        path.touch()
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (then, then))
    return folder


def test_a_fit_that_nobody_continues_is_removed_after_some_days(tmp_path: Path) -> None:
    old = killed_fit(tmp_path, "old", KEPT_DAYS + 1)
    recent = killed_fit(tmp_path, "recent", KEPT_DAYS - 1)
    progressing = killed_fit(tmp_path, "progressing", KEPT_DAYS + 1)
    (progressing / "K=1" / "checkpoint.safetensors").write_bytes(b"newer")
    draft = killed_fit(tmp_path, "x", KEPT_DAYS + 1).rename(tmp_path / "a-draft")
    remove_abandoned_fits(tmp_path)
    assert not old.exists()
    assert recent.exists()
    assert progressing.exists()
    assert draft.exists()
    remove_abandoned_fits(tmp_path / "none")


def test_a_fit_that_is_running_stays_however_old_it_is(tmp_path: Path) -> None:
    running = killed_fit(tmp_path, "running", KEPT_DAYS + 1)
    with (running / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        then = time.time() - (KEPT_DAYS + 1) * DAY_S
        os.utime(running / "lock", (then, then))
        remove_abandoned_fits(tmp_path)
        assert running.exists()
    remove_abandoned_fits(tmp_path)
    assert not running.exists()


def test_a_new_fit_removes_abandoned_ones(tmp_path: Path) -> None:
    old = killed_fit(tmp_path, "old", KEPT_DAYS + 1)
    own = killed_fit(tmp_path, "own", KEPT_DAYS + 1)
    with working_folder(own) as folder:
        assert folder == own
        assert (own / "K=1" / "checkpoint.safetensors").exists(), "it is continued"
        assert not old.exists()
        with pytest.raises(ConfigError, match="this very fit is running"), working_folder(own):
            pass
    assert [*tmp_path.iterdir()] == []
