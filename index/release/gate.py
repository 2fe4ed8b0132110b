"""The gate: how a draft must compare with the live release before it is published."""

from dataclasses import dataclass

from index.release.manifest import Manifest


@dataclass(frozen=True)
class Gate:
    """Limits that a draft must keep to. Shares: 0.05 is 5 %.

    split, metric: the offline metric that is compared; if the two manifests do not both have it,
    the first metric that they share.
    metric_drop: largest allowed drop of the metric, as a share of the live release's.
    ann_recall: lowest allowed share of exact search's answer that the index returns.
    size_change: largest allowed change of the number of items, as a share of the live release's.
    """

    split: str = "validation"
    metric: str = "recall@50"
    metric_drop: float = 0.05
    ann_recall: float = 0.95
    size_change: float = 0.2

    def failures(self, draft: Manifest, live: Manifest | None) -> list[str]:
        """A sentence for each check that fails; two of the three need a live release."""
        failures = self._ann_failures(draft)
        if live is not None:
            failures += self._metric_failures(draft, live) + self._size_failures(draft, live)
        return failures

    def _ann_failures(self, draft: Manifest) -> list[str]:
        recall = draft.index.recall if draft.index else 0.0
        if recall >= self.ann_recall:
            return []
        deficit = self.ann_recall - recall
        return [f"ANN recall is {recall:.4f}, {deficit:.4f} below the required {self.ann_recall}"]

    def _metric_failures(self, draft: Manifest, live: Manifest) -> list[str]:
        shared = [
            (split, metric)
            for split in sorted(draft.metrics.keys() & live.metrics.keys(), key=self._split_order)
            for metric in sorted(draft.metrics[split].keys() & live.metrics[split].keys())
        ]
        if not shared:
            return [f"no offline metric is in both its manifest and that of the live {live.id}"]
        preferred = (self.split, self.metric)
        split, metric = preferred if preferred in shared else shared[0]
        new, old = draft.metrics[split][metric], live.metrics[split][metric]
        allowed = self.metric_drop * abs(old)
        if new >= old - allowed:
            return []
        return [
            f"{metric} ({split}) is {new:.4f}, {old - new:.4f} below the {old:.4f} of the live "
            f"{live.id}; a drop of {allowed:.4f} ({self.metric_drop:.1%}) is allowed"
        ]

    def _split_order(self, split: str) -> tuple[bool, str]:
        return split != self.split, split

    def _size_failures(self, draft: Manifest, live: Manifest) -> list[str]:
        new, old = draft.data.items, live.data.items
        change = (new - old) / old
        if abs(change) <= self.size_change:
            return []
        return [
            f"the catalogue has {new:,} items, {change:+.1%} from the {old:,} of the live "
            f"{live.id}; a change of {self.size_change:.1%} is allowed"
        ]


DEFAULT_GATE = Gate()
