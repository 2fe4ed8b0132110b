"""Items' categories, and which of a user's held-out items belong to minor interests.

An item of several categories counts for each of them. The main categories of a history are those
that most of its items have: several if they tie. A held-out item is of a minor interest if it has a
category, and none of the main ones. Items without a category count for nothing.
"""

from collections import Counter
from collections.abc import Mapping

from index.retrieval.catalog import Catalog
from training.evaluation.metrics import CaseView
from training.evaluation.protocols import EvaluationCase

ItemCategories = Mapping[int, tuple[str, ...]]  # by row; without items that have none


def item_categories(catalog: Catalog) -> ItemCategories:
    others = catalog.other_categories or [()] * len(catalog)
    return {
        row: (first, *more)
        for row, (first, more) in enumerate(zip(catalog.categories, others, strict=True), start=1)
        if first is not None
    }


def view_of(case: EvaluationCase, categories: ItemCategories) -> CaseView:
    """Of a case as the metrics of interests see it, without the interests' lists."""
    counts = Counter(name for row in {*case.history} for name in categories.get(row, ()))
    most = max(counts.values(), default=0)
    main = {name for name, count in counts.items() if count == most}
    minor = [
        row
        for row in dict.fromkeys(case.relevant)
        if counts and row in categories and not main & {*categories[row]}
    ]
    return CaseView(case.relevant, frozenset(counts), minor, categories)
