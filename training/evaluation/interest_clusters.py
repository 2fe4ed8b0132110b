"""Whether users, and a user's interests, lie apart from one another (Re4, Table 7)."""

import numpy as np
from numpy.typing import NDArray

from index.retrieval.retriever import Retriever
from training.evaluation.protocols import Case

_USERS = 200


def represent(
    retriever: Retriever, cases: list[Case], users: int = _USERS
) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
    """Interests (U, K, D) of the first users with at least K items, shown or held out, and the
    vectors (n, D) of these."""
    count = retriever.encoder.interests
    items = [sorted({*case.history, *case.relevant}) for case in cases]
    chosen = [place for place, own in enumerate(items) if len(own) >= count][:users]
    interests = retriever.encode([cases[place].history for place in chosen])
    return interests, [retriever.vectors[items[place]] for place in chosen]


def separation(retriever: Retriever, cases: list[Case]) -> dict[str, float]:
    """inter_user and intra_user, in percent; neither where no user has K items."""
    if all(len({*case.history, *case.relevant}) < retriever.encoder.interests for case in cases):
        return {}
    interests, items = represent(retriever, cases)
    return {
        "inter_user": inter_user(interests, items),
        "intra_user": intra_user(interests, items),
    }


def inter_user(
    interests: NDArray[np.float32], items: list[NDArray[np.float32]], seed: int = 0
) -> float:
    """INTER: the share of users' items that lie in the cluster of their interest.

    interests (U, K, D); items: for each user (n, D), each item's interest being the one that scores
    it best. All are clustered together by k-means with a cluster a user. Percent.
    """
    users, count, dim = interests.shape
    points = np.concatenate([interests.reshape(-1, dim), *items])
    labels = _clustered(points, users, seed)
    of_interest = labels[: users * count].reshape(users, count)
    place, same, total = users * count, 0, 0
    for user, vectors in enumerate(items):
        nearest = (vectors @ interests[user].T).argmax(axis=1)
        same += int((labels[place : place + len(vectors)] == of_interest[user][nearest]).sum())
        total += len(vectors)
        place += len(vectors)
    return 100 * same / total


def intra_user(
    interests: NDArray[np.float32], items: list[NDArray[np.float32]], seed: int = 0
) -> float:
    """INTRA: of a user's K interests clustered with his items into K, the share of clusters that
    hold an interest, in percent; 100 where all interests are apart."""
    count = interests.shape[1]
    shares = []
    for own, vectors in zip(interests, items, strict=True):
        points = np.concatenate([own, vectors])
        labels = _clustered(points, count, seed)
        shares.append(len(set(labels[:count])) / count)
    return 100 * float(np.mean(shares))


def _clustered(points: NDArray[np.float32], clusters: int, seed: int) -> NDArray[np.int32]:
    """The cluster of each point."""
    from sklearn.cluster import KMeans  # takes a second to load, which a fit need not wait for

    result: NDArray[np.int32] = KMeans(
        clusters, init="k-means++", n_init=1, random_state=seed
    ).fit_predict(points)
    return result
