"""The settings of a nightly run under their former names."""

import pytest

from training.config import ConfigError
from training.nightly.config import FORMER_NAMES, NightConfig, read_night_config

NEEDED = [("root", "r"), ("events", "e")]


@pytest.mark.parametrize("former", FORMER_NAMES)
def test_a_former_name_is_refused_with_the_new_one(former: str) -> None:
    new = FORMER_NAMES[former]
    assert new in NightConfig.model_fields
    assert former not in NightConfig.model_fields
    with pytest.raises(ConfigError, match=f"^{former}: renamed; use {new}$"):
        read_night_config(None, [*NEEDED, (former, 1)])


@pytest.mark.parametrize("table", ["fit", "warm"])
def test_a_former_name_of_a_fit_s_setting_is_refused(table: str) -> None:
    with pytest.raises(ConfigError, match=f"{table}: cosine: renamed; use score_temperature"):
        read_night_config(None, [*NEEDED, (f"{table}.cosine", 0.1)])
