"""What a fit chooses from, by the settings that are given."""

from pathlib import Path

import pytest

from training.config import ConfigError, FitConfig, read_config
from training.fitting.candidates import Search, chosen_settings, read_search
from training.presets import CANDIDATES


def names(plan: Search | FitConfig) -> list[str]:
    assert isinstance(plan, Search)
    return [*plan.candidates]


def test_the_candidates_have_k_1_2_4_and_8_and_several_methods() -> None:
    plan = read_search(None, {})
    assert isinstance(plan, Search)
    assert names(plan) == [*CANDIDATES]
    assert {config.interests for config in plan.candidates.values()} == {1, 2, 4, 8}
    assert len({config.encoder for config in plan.candidates.values()}) > 1
    assert plan.first == read_config(None, {"interests": 8})
    assert (plan.minutes, plan.diverse) == (10.0, False)
    assert read_search(None, {}, "best") == plan


@pytest.mark.parametrize(
    "settings",
    [{"encoder": "re4"}, {"interests": 4}, {"encoder": "transformer", "interests": 1}],
)
def test_a_named_method_or_k_is_fitted_as_it_is(settings: dict[str, object]) -> None:
    assert read_search(None, settings) == read_config(None, settings)
    assert read_search(None, {}, "paper") == read_config(None, {}, "paper")
    assert read_search(None, {"search_minutes": 0}) == read_config(None, {"search_minutes": 0})


def test_given_settings_hold_for_all_and_rule_out_what_they_contradict(tmp_path: Path) -> None:
    toml = tmp_path / "fit.toml"
    toml.write_text("learning_rate = 0.01\nsearch_minutes = 3\n")
    plan = read_search(toml, {"objective": "served-max", "dim": 16})
    assert isinstance(plan, Search)
    served_max = [
        "re4-8",
        "transformer-8",
        "linear-recent",
        "linear-bag",
        "transformer-1",
        "re4-1",
        "re4-4",
        "re4-2",
    ]
    assert names(plan) == served_max
    assert {(c.learning_rate, c.dim) for c in plan.candidates.values()} == {(0.01, 16)}
    assert plan.minutes == 3
    # The flows of Re4 are not for methods that learn all positions.
    assert names(read_search(None, {"recontrast": 0.1})) == ["re4-8", "re4-1", "re4-4", "re4-2"]
    with pytest.raises(ConfigError, match="epoch = 3: Extra inputs are not permitted"):
        read_search(None, {"epoch": 3})


def test_diverse_chooses_among_several_interests() -> None:
    plan = read_search(None, {}, "diverse")
    assert isinstance(plan, Search)
    assert plan.diverse
    assert all((config.interests or 0) > 1 for config in plan.candidates.values())
    assert names(read_search(None, {"encoder": "re4"}, "diverse")) == ["re4-8", "re4-4", "re4-2"]
    for settings in ({"interests": 1}, {"search_minutes": 0}):
        with pytest.raises(ConfigError, match="preset diverse chooses among candidates of several"):
            read_search(None, settings, "diverse")


def test_what_was_chosen_is_read_from_a_manifest() -> None:
    config = read_config(None, {**CANDIDATES["transformer-gated-4"], "dim": 16})
    chosen = chosen_settings(config.model_dump(mode="json"))
    assert chosen.items() >= CANDIDATES["transformer-gated-4"].items()
    assert chosen["dim"] == 16  # candidates of this encoder differ in it
    assert "seed" not in chosen
    assert chosen_settings({"encoder": "re4", "dim": 64}) == {"encoder": "re4"}
