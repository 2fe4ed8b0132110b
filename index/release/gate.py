"""The gate: how a draft must compare with the live release before it is published."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import product

from index.release.manifest import Manifest, Setting

# The names in a manifest's metrics of a nightly run's held-out day: those of the model, and its
# lead over popularity.
DAY_METRICS, DAY_LEAD = "night", "night_lead"
VALIDATION = "validation"
# The popularity baselines of a split, and how they are called: a draft below one is refused.
POPULAR, RECENT = "popular", "recent"
_BASELINES = {POPULAR: "popularity", RECENT: "the popularity of the last weeks"}

# Interests: the share of distinct items among their lists, by its name and its former one. Below
# this much of the way from 1 / K, where all lists are the same, to 1 it is called a collapse.
_DISTINCT_SHARES = ("distinct_share", "interest_union")
_COLLAPSE = 0.25

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
    popularity_drop: share of popularity's metric by which the draft's may be below it: of that of
    the training part and that of its last weeks, on each split on which they were measured.
    distinct_share: lowest allowed share of distinct items among the lists of the K interests; None
    refuses nothing. collapse_warnings tells of less than a quarter of the way from 1 / K to 1.
    """

    split: str = "validation"
    metric: str = "recall@50"
    metric_drop: float = 0.05
    ann_recall: float = 0.95
    size_change: float = 0.2
    popularity_drop: float = 0.0
    distinct_share: float | None = None

    def failures(
        self, draft: Manifest, live: Manifest | None, same_cases: bool = False
    ) -> list[str]:
        """A sentence for each check that fails.

        same_cases: both have been evaluated on the same users, whatever protocols their fits had.
        """
        failures = self._ann_failures(draft) + self._popularity_failures(draft)
        failures += self._interest_failures(draft)
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
        """By means over the same users, on every split that has them; noise is not allowed for."""
        failures = []
        for split, (baseline, words) in product(draft.metrics, _BASELINES.items()):
            popular = draft.metrics.get(f"{split}_{baseline}", {}).get(self.metric)
            new = draft.metrics[split].get(self.metric)
            if popular is None or new is None or new >= popular * (1 - self.popularity_drop):
                continue
            failures.append(
                f"{self.metric} ({split}) is {new:.4f}, below the {popular:.4f} of {words} "
                "on the same users"
            )
        return failures

    def _interest_failures(self, draft: Manifest) -> list[str]:
        share = _distinct_share(draft)
        if share is None or self.distinct_share is None or share >= self.distinct_share:
            return []
        return [
            f"the lists of its {_interests(draft)} interests have a distinct share of {share:.3f}, "
            f"below the required {self.distinct_share}"
        ]

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


def collapse_warnings(draft: Manifest) -> list[str]:
    """A sentence on a draft, or release, whose interests retrieve about the same items."""
    share, count = _distinct_share(draft), _interests(draft)
    if share is None or share >= 1 / count + _COLLAPSE * (1 - 1 / count):
        return []
    return [
        f"{draft.id}: its {count} interests retrieve about the same items: {share:.1%} of their "
        f"lists are distinct, where one list {count} times has {1 / count:.1%}; one interest may "
        "answer as well"
    ]


def _distinct_share(manifest: Manifest) -> float | None:
    metrics = manifest.metrics.get(VALIDATION, {})
    return next((metrics[name] for name in _DISTINCT_SHARES if name in metrics), None)


def _interests(manifest: Manifest) -> int:
    return int(manifest.encoder.arguments.get("interests", 1))


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
