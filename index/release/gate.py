"""The gate: how a draft must compare with the live release before it is published."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from index.release.manifest import Manifest, Setting

# The names of a nightly run's held-out day in a manifest's metrics: those of the model, its lead
# over popularity, and those of popularity.
DAY_METRICS, DAY_LEAD, DAY_POPULARITY = "night", "night_lead", "night_popular"
_POPULARITY_OF = {DAY_METRICS: DAY_POPULARITY}

# The settings of a fit that decide who is evaluated, and on what.
_SPLIT = "split"
_PROTOCOL = (
    "event_types",
    "min_weight",
    "min_user_interactions",
    "min_item_interactions",
    "exclude_seen",
)


@dataclass(frozen=True)
class Gate:
    """Limits that a draft must keep to. Shares: 0.05 is 5 %.

    split, metric: the offline metric that is compared.
    metric_drop: largest allowed drop of the metric, as a share of the live release's.
    ann_recall: lowest allowed share of exact search's answer that the index returns.
    size_change: largest allowed change of the number of items, as a share of the live release's.
    popularity_drop: share of popularity's metric by which the draft's may be below it, where both
    were measured on the same users.
    """

    split: str = "validation"
    metric: str = "recall@50"
    metric_drop: float = 0.05
    ann_recall: float = 0.95
    size_change: float = 0.2
    popularity_drop: float = 0.0

    def failures(
        self, draft: Manifest, live: Manifest | None, same_cases: bool = False
    ) -> list[str]:
        """A sentence for each check that fails.

        same_cases: both have been evaluated on the same users, whatever protocols their fits had.
        """
        failures = self._ann_failures(draft) + self._popularity_failures(draft)
        if live is None:
            return failures + self._name_failures(draft)
        incomparable = [] if same_cases else self._protocol_failures(draft, live)
        if incomparable:
            failures += incomparable + self._name_failures(draft)
        else:
            failures += self._metric_failures(draft, live)
        return failures + self._size_failures(draft, live)

    def _ann_failures(self, draft: Manifest) -> list[str]:
        recall = draft.index.recall if draft.index else 0.0
        if recall >= self.ann_recall:
            return []
        deficit = self.ann_recall - recall
        return [f"ANN recall is {recall:.4f}, {deficit:.4f} below the required {self.ann_recall}"]

    def _popularity_failures(self, draft: Manifest) -> list[str]:
        failures = []
        for split, baseline in _POPULARITY_OF.items():
            new = draft.metrics.get(split, {}).get(self.metric, 0.0)
            popular = draft.metrics.get(baseline, {}).get(self.metric, 0.0)
            if new < popular * (1 - self.popularity_drop):
                failures.append(
                    f"{self.metric} ({split}) is {new:.4f}, below the {popular:.4f} of popularity "
                    "on the same users"
                )
        return failures

    def _name_failures(self, draft: Manifest) -> list[str]:
        """Where nothing is compared, a mistyped name is refused all the same."""
        if (self.split, self.metric) == (Gate.split, Gate.metric):
            return []
        return self._unknown_name(draft.metrics)

    def _protocol_failures(self, draft: Manifest, live: Manifest) -> list[str]:
        mine, theirs = _protocol(draft), _protocol(live)
        differences = [
            f"{name} = {mine[name]}, and {theirs[name]} for the live {live.id}"
            for name in sorted(mine.keys() & theirs.keys())
            if mine[name] != theirs[name]
        ]
        if not differences:
            return []
        return [
            f"its metrics and those of the live {live.id} were measured by different protocols, "
            f"so they are not compared ({'; '.join(differences)}); fit the draft again with the "
            f"settings of {live.id}"
        ]

    def _metric_failures(self, draft: Manifest, live: Manifest) -> list[str]:
        shared = {
            split: draft.metrics[split].keys() & live.metrics[split].keys()
            for split in draft.metrics.keys() & live.metrics.keys()
        }
        if not any(shared.values()):
            return [f"no offline metric is in both its manifest and that of the live {live.id}"]
        if unknown := self._unknown_name(
            shared, f" in both its manifest and that of the live {live.id}"
        ):
            return unknown
        new, old = draft.metrics[self.split][self.metric], live.metrics[self.split][self.metric]
        allowed = self.metric_drop * abs(old)
        if new >= old - allowed:
            return []
        return [
            f"{self.metric} ({self.split}) is {new:.4f}, {old - new:.4f} below the {old:.4f} of "
            f"the live {live.id}; a drop of {allowed:.4f} ({self.metric_drop:.1%}) is allowed"
        ]

    def _unknown_name(self, metrics: Mapping[str, Collection[str]], whose: str = "") -> list[str]:
        """One sentence if the split or the metric is not among these, by split."""
        if self.split not in metrics:
            allowed = ", ".join(sorted(metrics)) or "none"
            return [f"split {self.split!r}: no metrics{whose}; choose one of {allowed}"]
        if self.metric in metrics[self.split]:
            return []
        allowed = ", ".join(sorted(metrics[self.split])) or "none"
        return [
            f"metric {self.metric!r}: not measured on {self.split}{whose}; choose one of {allowed}"
        ]

    def _size_failures(self, draft: Manifest, live: Manifest) -> list[str]:
        new, old = draft.data.items, live.data.items
        change = (new - old) / old
        if abs(change) <= self.size_change:
            return []
        return [
            f"the catalogue has {new:,} items, {change:+.1%} from the {old:,} of the live "
            f"{live.id}; a change of {self.size_change:.1%} is allowed"
        ]


def _protocol(manifest: Manifest) -> dict[str, str]:
    """What decides who was evaluated, and on what, in words.

    Old manifests lack some settings; the split they all have.
    """
    training = manifest.training
    split = "held-out day" if DAY_METRICS in manifest.metrics else training.get(_SPLIT)
    protocol = {_SPLIT: _words(split) if split else "unknown"}
    protocol |= {name: _words(training[name]) for name in _PROTOCOL if name in training}
    if split == "temporal" and "test_fraction" in training:
        protocol["test_fraction"] = _words(training["test_fraction"])
    return protocol


def _words(setting: Setting) -> str:
    if isinstance(setting, list):
        return " and ".join(sorted(setting)) or "none"
    return "none" if setting is None else str(setting)


DEFAULT_GATE = Gate()
