"""Clusters of interests: INTER and INTRA."""

import numpy as np

from training.evaluation.interest_clusters import inter_user, intra_user


def test_inter_and_intra_on_well_separated_clusters():
    # Two distant users with two interests each, and items at the interests.
    interests = np.array([[[10, 0], [10, 1]], [[-10, 0], [-10, 1]]], dtype=np.float32)
    items = [np.repeat(user, 3, axis=0) for user in interests]
    assert inter_user(interests, items) == 100
    assert intra_user(interests, items) == 100
    collapsed = np.array([[[10, 0], [10, 0]]], dtype=np.float32)
    apart = [np.array([[10, 0], [9, 5], [9, 5]], dtype=np.float32)]
    assert intra_user(collapsed, apart) == 50
