"""Settings that go together, and those that do not."""

import pytest

from training.config import ConfigError, read_config


@pytest.mark.parametrize(("epochs", "first_stage"), [(30, 10), (11, 10), (10, 5), (2, 1), (1, 0)])
def test_a_first_stage_leaves_epochs_to_choose_from(epochs: int, first_stage: int) -> None:
    config = read_config(None, {"encoder": "timirec", "epochs": epochs})
    assert config.pretrain_epochs == first_stage


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"encoder": "timirec", "epochs": 5, "pretrain_epochs": 5}, "epochs = 5 leaves none to"),
        ({"encoder": "sasrec", "heads": 3}, "heads = 3 does not divide dim = 64"),
        ({"encoder": "bert4rec"}, "encoder = 'bert4rec': choose one of re4, "),
        ({"encoder": None}, "encoder = None: choose one of re4, "),
        ({"epochs": 0}, "epochs = 0: Input should be greater than or equal to 1"),
        ({"epoch": 3}, "epoch = 3: Extra inputs are not permitted; known are "),
    ],
)
def test_what_cannot_be_is_named(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_config(None, settings)
