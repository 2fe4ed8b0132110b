"""The settings of a fit: combinations, precedence, former names."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from index.encoders import ENCODERS
from index.encoders.arguments import GIVEN_ARGUMENTS
from training.config import ConfigError, FitConfig, given_options, read_config
from training.data.former_names import FORMER_NAMES
from training.data.log_options import LogOptions
from training.models.objectives import AUXILIARY_LOSSES, MAIN_LOSSES
from training.models.options import model_identity


@pytest.mark.parametrize(("epochs", "first_stage"), [(30, 10), (11, 10), (10, 5), (2, 1), (1, 0)])
def test_a_first_stage_leaves_epochs_to_choose_from(epochs: int, first_stage: int) -> None:
    config = read_config(None, {"encoder": "timirec", "epochs": epochs})
    assert config.pretrain_epochs == first_stage


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoder": "timirec", "epochs": 5, "pretrain_epochs": 5}, "epochs = 5 leaves none to"),
        ({"encoder": "sasrec", "heads": 3}, "heads = 3 does not divide dim = 128"),
        ({"encoder": "bert4rec"}, "encoder = 'bert4rec': choose one of re4, "),
        ({"encoder": None}, "encoder = None: choose one of re4, "),
        (
            {"encoder": "linear", "positions": "all"},
            "positions = 'all': linear is computed in closed form",
        ),
        (
            {"encoder": "sasrec", "positions": "all", "recontrast": 0.1},
            "recontrast reads one history an example: set positions = 'last'",
        ),
        ({"epochs": 0}, "epochs = 0: Input should be greater than or equal to 1"),
        ({"epoch": 3}, "epoch = 3: Extra inputs are not permitted; known are "),
    ],
)
def test_settings_that_cannot_be_used_are_refused(
    settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        read_config(None, settings)


def test_overrides_win_over_the_file_and_the_file_over_the_preset(tmp_path: Path) -> None:
    toml = tmp_path / "fit.toml"
    toml.write_text("score_temperature = 0.3\nepochs = 7\n")
    config = read_config(toml, {"epochs": 2})
    assert (config.epochs, config.score_temperature, config.recency) == (2, 0.3, True)
    assert read_config(None, {}).score_temperature == 0.15


@pytest.mark.parametrize("content", [None, "epochs =", b"\xff"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, content: str | bytes | None) -> None:
    toml = tmp_path / "fit.toml"
    if content is not None:
        toml.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=r"fit\.toml: not a readable TOML file"):
        read_config(toml, {})


def test_encoders_and_losses_bring_their_options() -> None:
    models: list[type[BaseModel]] = [encoder.Arguments for encoder in ENCODERS.values()]
    models += [loss.term.Arguments for loss in (MAIN_LOSSES | AUXILIARY_LOSSES).values()]
    names = {name for model in models for name in model.model_fields} - GIVEN_ARGUMENTS
    assert names | {"objective", *AUXILIARY_LOSSES} <= FitConfig.model_fields.keys()
    assert given_options(FitConfig).model_fields.keys() == FitConfig.model_fields.keys()


def test_what_a_warm_fit_cannot_change_is_the_encoder_and_its_arguments() -> None:
    assert model_identity() == {
        *("encoder", "interests", "history", "dim", "hidden", "recency", "head", "biases"),
        *("iterations", "dynamic", "layers", "heads", "score_temperature", "gated", "expansion"),
        *("learned_temperature", "item_bias", "readout", "history_decay", "own_share", "time_gaps"),
        "single_readout",
    }


@pytest.mark.parametrize("former", FORMER_NAMES)
def test_a_former_name_is_refused_with_the_new_one(former: str) -> None:
    new = FORMER_NAMES[former]
    assert new in FitConfig.model_fields
    assert former not in FitConfig.model_fields
    with pytest.raises(ConfigError, match=f"^{former}: renamed; use {new}$"):
        read_config(None, {former: 1})


def test_former_names_are_read_in_stored_settings() -> None:
    stored = {"min_user": 3, "min_item": 2, "events": ["buy"], "cosine": 0.2, "routing": 7.0}
    options = LogOptions.from_stored(stored)
    assert (options.min_user_interactions, options.min_item_interactions) == (3, 2)
    assert options.event_types == ("buy",)
    config = FitConfig.from_stored(stored)
    assert (config.score_temperature, config.routing_reg_weight) == (0.2, 7.0)
