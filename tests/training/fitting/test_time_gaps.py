"""Whether a fit reads times, and what continues it."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from index.release.manifest import EncoderSpec, read_manifest
from training.config import ConfigError, FitConfig, read_config
from training.evaluation.evaluate import evaluate_release
from training.fitting.candidates import chosen_settings, read_search
from training.fitting.fit import fit
from training.fitting.time_gaps import with_time_gaps
from training.fitting.warm_start import is_encoder_compatible
from training.models.model import encoder_arguments

NOW, POSITION = 1.7e9, 12.0
SMALL: dict[str, Any] = {
    "encoder": "transformer",
    "interests": 1,
    "dim": 8,
    "history": 10,
    "heads": 1,
    "epochs": 2,
    "negatives": 20,
    "positions": "all",
}


@pytest.mark.parametrize(
    ("given", "moment", "decided"),
    [
        (None, NOW, True),
        (None, NOW * 1e3, True),
        (None, POSITION, False),
        (False, NOW, False),
        (False, POSITION, False),
        (True, NOW, True),
    ],
)
def test_times_are_read_of_a_log_that_has_them(
    given: bool | None, moment: float, decided: bool
) -> None:
    config = FitConfig(**SMALL, time_gaps=given)
    assert with_time_gaps(config, moment).time_gaps is decided


def test_an_encoder_that_cannot_read_times_is_left_as_it_is() -> None:
    assert with_time_gaps(FitConfig(), NOW) == FitConfig()


def test_times_that_are_not_there_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"time_gaps = true: .* 12 is not in Unix seconds"):
        with_time_gaps(FitConfig(**SMALL, time_gaps=True), POSITION)


def write_log(path: Path, start: float) -> Path:
    """After a short gap users take the item of the same number of the other half, else any."""
    random = np.random.default_rng(0)
    rows = []
    for user in range(150):
        item, moment = int(random.integers(40)), start
        for _ in range(12):
            rows.append((f"u{user}", f"i{item:02}", moment))
            is_soon = random.random() < 0.5
            moment += 1.0 if is_soon else 1e5
            item = (item + 20) % 40 if is_soon else int(random.integers(40))
    pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]).to_csv(path, index=False)
    return path


def test_a_fit_reads_the_times_and_is_measured_with_them(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.csv", NOW)
    learnt = {"dim": 32, "score_temperature": 0.1, "learning_rate": 0.01, "dropout": 0.0}
    schedule = {"epochs": 25, "patience": 25, "batch_size": 64, "layers": 1}
    settings = {**SMALL, **learnt, **schedule, "split": "leave-one-out"}
    found = {}
    for time_gaps in (None, False):
        draft = fit(log, tmp_path / str(time_gaps), FitConfig(**settings, time_gaps=time_gaps))
        manifest = read_manifest(draft)
        assert manifest.encoder.arguments["time_gaps"] is (time_gaps is None)
        assert manifest.training["time_gaps"] is (time_gaps is None)
        found[time_gaps] = evaluate_release(draft, log, exclude_seen=False).metrics["ndcg@20"]
        assert manifest.metrics["validation"]["ndcg@20"] > 0
    # What comes after a second is certain, if the second is known.
    assert found[None] > 1.1 * found[False]


def test_a_fit_of_positions_reads_no_times(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.csv", 0.0)
    draft = fit(log, tmp_path, FitConfig(**SMALL))
    assert read_manifest(draft).encoder.arguments["time_gaps"] is False
    with pytest.raises(ConfigError, match="give a log of Unix times"):
        fit(log, tmp_path, FitConfig(**SMALL, time_gaps=True))


def test_a_search_decides_for_each_candidate(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.csv", NOW)
    plan = read_search(None, {**SMALL, "interests": None, "search_minutes": 0.0})
    assert isinstance(plan, FitConfig)  # which names its encoder
    assert read_manifest(fit(log, tmp_path, plan)).training["time_gaps"] is True


def test_a_release_made_before_there_was_the_setting_is_continued_without_times() -> None:
    config = FitConfig(**SMALL, time_gaps=False)
    arguments = encoder_arguments(config, 100)
    del arguments["time_gaps"]
    spec = EncoderSpec.model_validate(
        {"name": "transformer", "arguments": arguments, "history_length": 10}
    )
    assert is_encoder_compatible(spec, config)
    assert not is_encoder_compatible(spec, FitConfig(**SMALL, time_gaps=True))
    stored = config.model_dump(mode="json")
    assert chosen_settings(stored)["time_gaps"] is False
    del stored["time_gaps"]
    assert chosen_settings(stored)["time_gaps"] is False
    assert "time_gaps" not in chosen_settings({"encoder": "re4", "dim": 64})
    assert read_config(None, chosen_settings(stored)).time_gaps is False
