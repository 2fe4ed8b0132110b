"""How far a night's data has moved from what the live release knows."""

import numpy as np

from index.retrieval.catalog import Catalog
from training.data.interactions import Interactions


def drift(log: Interactions, since: float, new: Catalog, live: Catalog | None) -> dict[str, float]:
    """Shares, 0 to 1, of the window and of its time after `since`, the day.

    new_users: of the day's users, those who were not there before. Beside a live release also
    new_items of the catalogue, gone_items of the live one, and unknown_interactions of the day,
    which are with items that live lacks.
    """
    day = log.times >= since
    users = np.repeat(np.arange(len(log.user_ids)), np.diff(log.offsets))
    present, before = np.unique(users[day]), np.unique(users[~day])
    shares = {"new_users": 1 - len(np.intersect1d(present, before)) / max(len(present), 1)}
    if live is not None:
        known = np.array(live.rows(log.item_ids)) > 0
        kept = np.count_nonzero(live.rows(new.ids))
        shares["new_items"] = 1 - kept / len(new)
        shares["gone_items"] = 1 - kept / len(live)
        shares["unknown_interactions"] = float((~known[log.items[day]]).mean()) if day.any() else 0
    return {name: float(share) for name, share in shares.items()}
