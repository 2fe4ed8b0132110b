"""The content of a recommendation: items with their ids and scores, and the explanation."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.retrieval.catalog import Catalog, attributes_of
from index.retrieval.delta import Delta
from index.retrieval.query import Answer
from service.serving.outcome import QueryResult


def recommendations(
    result: QueryResult,
    explain: bool,
    degraded: bool,
    include: Sequence[str] | None = None,
) -> dict[str, Any]:
    """The content of the response. degraded: whether the stored history is missing.

    include: names of attributes.
    """
    answer = result.answer
    catalog = result.release.retriever.catalog
    ids = _ids(answer.rows, catalog, result.delta)
    is_personal = answer.source == "interests"
    interests = answer.interests.tolist() if is_personal else [None] * len(ids)
    content: dict[str, Any] = {
        "items": [
            {"item_id": item_id, "score": score, "interest": interest}
            for item_id, score, interest in zip(ids, answer.scores.tolist(), interests, strict=True)
        ],
        "release": result.release.id,
        "source": answer.source,
        "degraded": degraded,
        "unknown_items": answer.unknown,
    }
    if result.variant is not None:
        content["variant"] = result.variant
    _mark_items(content["items"], result)
    if include:
        for item, row in zip(content["items"], answer.rows.tolist(), strict=True):
            if result.delta is not None and row > len(catalog):
                item["attributes"] = result.delta.details_of(item["item_id"]).named(include)
            else:
                item["attributes"] = attributes_of(catalog, include, row)
    if explain:
        _add_explanation(content, answer, catalog, result.delta)
    return content


def _mark_items(items: Sequence[dict[str, Any]], result: QueryResult) -> None:
    """Add `new` to those of the delta, and what boosts added."""
    answer = result.answer
    if result.delta is not None:
        for item, row in zip(items, answer.rows.tolist(), strict=True):
            if row > len(result.release.retriever.catalog):
                item["new"] = True
    if answer.boosts is not None:
        for item, boost in zip(items, answer.boosts.tolist(), strict=True):
            item["boost"] = boost


def _ids(rows: NDArray[np.int64], catalog: Catalog, delta: Delta | None) -> list[str]:
    if delta is None:
        # One loop in C: the ids are scattered in memory, and the processor prefetches several.
        return list(map(catalog.ids.__getitem__, (rows - 1).tolist()))
    return [_id(row, catalog, delta) for row in rows.tolist()]


def _id(row: int, catalog: Catalog, delta: Delta | None) -> str:
    delta_index = row - len(catalog) - 1
    return delta.ids[delta_index] if delta is not None and delta_index >= 0 else catalog.id(row)


def _add_explanation(
    content: dict[str, Any], answer: Answer, catalog: Catalog, delta: Delta | None
) -> None:
    """Add the scores and interests; an empty list of interests for popular items."""
    content["interests"] = []
    if (explanation := answer.explanation) is None:
        return
    for item, scores in zip(content["items"], explanation.scores.tolist(), strict=True):
        item["scores"] = scores
    content["interests"] = [
        {
            "share": share,
            "attended": [
                {"item_id": _id(row, catalog, delta), "weight": weight} for row, weight in attended
            ],
        }
        for share, attended in zip(explanation.shares.tolist(), explanation.attended, strict=True)
    ]
