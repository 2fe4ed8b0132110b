"""How far a window has moved from the live release."""

import numpy as np
import pytest

from index.retrieval.catalog import Catalog
from training.data.packed_log import prepare
from training.evaluation.drift import drift


def test_drift_is_in_shares(log_of, since):
    log = log_of({"u": [("a", 1.0), ("b", 11.0)], "v": [("a", 12.0), ("c", 12.0)]})
    new, _ = prepare(log, 1, 1)
    live = Catalog(["a", "x", "y"], np.array([3, 2, 1]), [None] * 3, [None] * 3)
    assert drift(log, since, new, live) == pytest.approx(
        {
            "new_users": 1 / 2,
            "new_items": 2 / 3,
            "gone_items": 2 / 3,
            "unknown_interactions": 2 / 3,
        }
    )
    assert drift(log, since, new, None).keys() == {"new_users"}
