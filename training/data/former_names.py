"""The former names of a fit's settings: read in stored settings, refused in given ones."""

from collections.abc import Mapping
from typing import Any

from index.encoders.arguments import FORMER_ARGUMENTS

# Former name -> name.
FORMER_NAMES: Mapping[str, str] = {
    **FORMER_ARGUMENTS,
    "distil_temperature": "distillation_temperature",
    "events": "event_types",
    "hardness": "ihn_beta",
    "inverse_temperature": "selection_inverse_temperature",
    "min_item": "min_item_interactions",
    "min_user": "min_user_interactions",
    "routing": "routing_reg_weight",
    "select_on": "selection_metric",
    "selection": "interest_selection",
    "sparse_above": "sparse_update_threshold",
    "table_std": "item_init_std",
    "temperature": "recontrast_temperature",
}


def with_current_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Stored settings, such as those in a release's manifest, under the names of today."""
    return {FORMER_NAMES.get(name, name): value for name, value in settings.items()}
