"""Settings of a nightly run: file, command line, errors."""

from pathlib import Path

import pytest

from training.config import ConfigError
from training.nightly.config import FORMER_NAMES, NightConfig, read_night_config

REQUIRED = [("root", "r"), ("events", "e")]


def test_command_line_settings_override_the_file(tmp_path):
    toml = tmp_path / "night.toml"
    toml.write_text('root = "a"\nevents = "b"\nkeep = 7\n[fit]\ndim = 32\nepochs = 9\n')
    overrides = [("keep", 3), ("fit.epochs", 2), ("warm.patience", 1), ("until", "2026-01-02")]
    config = read_night_config(toml, overrides)
    assert (config.root, config.keep, config.cold) == (Path("a"), 3, False)
    cold, warm = config.fit_config(warm=False), config.fit_config(warm=True)
    assert (cold.dim, cold.epochs, cold.split) == (32, 2, "temporal")
    assert (cold.patience, warm.patience) == (3, 1)
    toml.write_text('root = "a"\nevents = "b"\nuntil = 2026-01-02T00:00:00Z\n')
    assert read_night_config(toml, []).until == 1_767_312_000
    assert read_night_config(toml, [("until", "2026-01-02T00:00:00Z")]).until == 1_767_312_000
    toml.write_text('root = "a"\nevents = "b"\nuntil = 2026-01-02\n')
    from_option = read_night_config(toml, [("until", "2026-01-02")])
    assert read_night_config(toml, []).until == from_option.until


@pytest.mark.parametrize(
    "columns",
    [
        'columns = { user = "visitorid", item = "itemid" }',
        'columns = ["item=itemid", "user=visitorid"]',
        'columns = "user=visitorid,item=itemid"',
    ],
)
def test_the_layout_of_the_log_is_a_setting_of_the_fit(tmp_path: Path, columns: str) -> None:
    toml = tmp_path / "night.toml"
    options = 'separator = "tab"\nskip_bad_rows = 3\nmax_user_interactions = 500\n'
    toml.write_text(f'root = "a"\nevents = "b"\nlog = "c"\n[fit]\n{options}{columns}\n')
    fit = read_night_config(toml, []).fit_config(warm=False)
    assert fit.columns == ("user=visitorid", "item=itemid")
    assert (fit.separator, fit.skip_bad_rows, fit.max_user_interactions) == ("\t", 3, 500)
    given = read_night_config(toml, [("fit.columns", "user=who")]).fit_config(warm=True)
    assert given.columns == ("user=who",)


def test_the_weights_of_event_types_are_a_setting_of_the_fit(tmp_path: Path) -> None:
    toml = tmp_path / "night.toml"
    weights = "[fit]\nevent_weights = { view = 0.2, purchase = 1 }\n"
    toml.write_text(f'root = "a"\nevents = "b"\n{weights}')
    config = read_night_config(toml, [])
    for warm in (False, True):
        expected = {"view": 0.2, "purchase": 1.0}
        assert config.fit_config(warm).weights_by_event == expected
    given = read_night_config(toml, [("fit.event_weights", "view=3")]).fit_config(warm=False)
    assert given.weights_by_event == {"view": 3.0}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (("kep", 3), "kep: Extra inputs are not permitted; known are"),
        (("keep", 0), "keep: Input should be greater than or equal to 1"),
        (("fit.dimm", 3), "dimm"),
        (("keep.x", 3), "keep: |keep has no settings"),
        (("until", "soon"), "until"),
        (("warm.patience", "long"), "warm: patience"),
        (("warm.dim", 48), "warm: dim is part of the model, which is kept; set it in fit"),
        (("warm.event_weights", "view=1"), "warm: event_weights belong to the window, "),
        (("fit.event_weights", "view"), "fit: event_weights.*'view' is not TYPE=WEIGHT"),
        (("fit.encoder", "none"), "fit: encoder = 'none': choose one of re4, "),
        (("fit.encoder", ["re4"]), "fit: encoder"),
        (("fit.heads", 3), "fit: heads = 3 does not divide dim = 128"),
        (("fit.pretrain_epochs", 30), "fit: epochs = 30 leaves none to choose from"),
        (("notification_command", ""), "notification_command"),
        (("webhook", ""), "webhook"),
        (("root", ""), "root: Value error, name a file or folder"),
        (("until", float("nan")), "until"),
        (("until", 1_767_312_000_000), "until: .*milliseconds"),
        (("metric_drop", 5), "metric_drop: Input should be less than or equal to 1"),
        (("max_metric_drop", 1.4), "max_metric_drop: Input should be less than or equal to 1"),
        (("ann_recall", -1), "ann_recall: Input should be greater than or equal to 0"),
        (("ann_recall", 95), "ann_recall: Input should be less than or equal to 1"),
        (("size_change", -0.2), "size_change: Input should be greater than or equal to 0"),
    ],
)
def test_an_invalid_setting_is_rejected(tmp_path, override, message):
    toml = tmp_path / "night.toml"
    encoder = "sasrec" if override[0] == "fit.heads" else "re4"
    toml.write_text(f'root = "a"\nevents = "b"\nkeep = 7\n[fit]\nencoder = "{encoder}"\n')
    with pytest.raises(ConfigError, match=message):
        read_night_config(toml, [override])


@pytest.mark.parametrize("former", FORMER_NAMES)
def test_a_former_name_is_refused_with_the_new_one(former: str) -> None:
    new = FORMER_NAMES[former]
    assert new in NightConfig.model_fields
    assert former not in NightConfig.model_fields
    with pytest.raises(ConfigError, match=f"^{former}: renamed; use {new}$"):
        read_night_config(None, [*REQUIRED, (former, 1)])


@pytest.mark.parametrize("table", ["fit", "warm"])
def test_a_former_name_of_a_fit_s_setting_is_refused(table: str) -> None:
    with pytest.raises(ConfigError, match=f"{table}: cosine: renamed; use score_temperature"):
        read_night_config(None, [*REQUIRED, (f"{table}.cosine", 0.1)])
