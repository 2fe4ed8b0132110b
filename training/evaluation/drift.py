"""Data drift: how far the training window has moved from what the live release knows."""

import numpy as np

from index.retrieval.catalog import Catalog
from training.data.interactions import Interactions


def drift(log: Interactions, since: float, new: Catalog, live: Catalog | None) -> dict[str, float]:
    """Shares, 0 to 1, of the window and of its held-out day, the time from `since` on.

    new_users: of the day's users, those without earlier interactions. With a live release also
    new_items: of the new catalogue, those that the live one lacks; gone_items: the reverse;
    unknown_interactions: of the day's interactions, those with items that the live one lacks.
    """
    day, users = log.times >= since, log.users
    day_users, earlier_users = np.unique(users[day]), np.unique(users[~day])
    returning = len(np.intersect1d(day_users, earlier_users))
    shares = {"new_users": 1 - returning / max(len(day_users), 1)}
    if live is not None:
        known = np.array(live.rows(log.item_ids)) > 0
        common = np.count_nonzero(live.rows(new.ids))
        shares["new_items"] = 1 - common / len(new)
        shares["gone_items"] = 1 - common / len(live)
        shares["unknown_interactions"] = float((~known[log.items[day]]).mean()) if day.any() else 0
    return {name: float(share) for name, share in shares.items()}
