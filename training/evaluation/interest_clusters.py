"""How well users, and the interests of a user, are separated from one another (Re4, Table 7)."""

import numpy as np
from numpy.typing import NDArray

from index.retrieval.retriever import Retriever
from training.evaluation.protocols import EvaluationCase
from training.evaluation.rankings import encode_cases

_MAX_USERS = 200


def interests_and_items(
    retriever: Retriever, cases: list[EvaluationCase], users: int = _MAX_USERS
) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
    """Interests (U, K, D) of the first users with at least K items in history and held-out part
    together, and the vectors (n, D) of these items for each user; without terms of the score."""
    count, content = retriever.encoder.interests, retriever.encoder.content
    items = [sorted({*case.history, *case.relevant}) for case in cases]
    selected = [index for index, rows in enumerate(items) if len(rows) >= count][:users]
    interests = encode_cases(retriever, [cases[index] for index in selected])[..., :content]
    return interests, [retriever.vectors[items[index], :content] for index in selected]


def cluster_metrics(retriever: Retriever, cases: list[EvaluationCase]) -> dict[str, float]:
    """inter_user and intra_user, in percent; neither if no user has K items."""
    if all(len({*case.history, *case.relevant}) < retriever.encoder.interests for case in cases):
        return {}
    interests, items = interests_and_items(retriever, cases)
    return {
        "inter_user": inter_user(interests, items),
        "intra_user": intra_user(interests, items),
    }


def inter_user(
    interests: NDArray[np.float32], items: list[NDArray[np.float32]], seed: int = 0
) -> float:
    """INTER: the share of users' items that are in the cluster of their interest, in percent.

    interests (U, K, D); items: for each user (n, D); an item's interest is the one that scores it
    best. Interests and items of all users are clustered together by k-means into U clusters.
    """
    users, count, dim = interests.shape
    points = np.concatenate([interests.reshape(-1, dim), *items])
    labels = _cluster(points, users, seed)
    interest_labels = labels[: users * count].reshape(users, count)
    start, same, total = users * count, 0, 0
    for user, vectors in enumerate(items):
        nearest = (vectors @ interests[user].T).argmax(axis=1)
        item_labels = labels[start : start + len(vectors)]
        same += int((item_labels == interest_labels[user][nearest]).sum())
        total += len(vectors)
        start += len(vectors)
    return 100 * same / total


def intra_user(
    interests: NDArray[np.float32], items: list[NDArray[np.float32]], seed: int = 0
) -> float:
    """INTRA: of K clusters of a user's interests and items, the share that contain an interest, in
    percent, mean over users; 100 if all interests are separated."""
    count = interests.shape[1]
    shares = []
    for user_interests, vectors in zip(interests, items, strict=True):
        points = np.concatenate([user_interests, vectors])
        labels = _cluster(points, count, seed)
        shares.append(len(set(labels[:count])) / count)
    return 100 * float(np.mean(shares))


def _cluster(points: NDArray[np.float32], clusters: int, seed: int) -> NDArray[np.int32]:
    """The cluster of each point."""
    from sklearn.cluster import KMeans  # takes a second to import, and a fit does not need it

    kmeans = KMeans(clusters, init="k-means++", n_init=1, random_state=seed)
    labels: NDArray[np.int32] = kmeans.fit_predict(points)
    return labels
