"""A window with too few events."""

import shutil

from tests.training.nightly.nightly_runs import FIRST_END, config_of, live_release
from training.data.event_window import DAY_S
from training.nightly.run import run_nightly


def test_an_empty_day_is_nothing_new(folder):
    before = live_release(folder)
    outcome = run_nightly(config_of(folder, until=FIRST_END + DAY_S / 8))
    assert outcome.exit_code == 4
    assert "users to compare on, where 10 are needed" in outcome.sentence
    shutil.rmtree(folder / "events")
    outcome = run_nightly(config_of(folder))
    assert "no event is in the window" in outcome.sentence
    assert live_release(folder) == before
