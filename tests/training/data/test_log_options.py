"""The settings of a log, as manifests have them."""

from training.data.log_options import LogOptions


def test_former_names_are_read_from_a_manifest_and_other_settings_ignored():
    stored = {"min_user": 3, "min_item": 2, "events": ["buy"], "split_seed": 7, "dim": 64}
    expected = LogOptions(
        min_user_interactions=3, min_item_interactions=2, event_types=("buy",), split_seed=7
    )
    assert LogOptions.from_stored(stored) == expected
