"""What a fit says at its end: its metric beside popularity's, and what is wrong with it."""

from index.release.gate import DEFAULT_GATE, POPULAR, RECENT, VALIDATION, collapse_warnings
from index.release.manifest import Manifest
from training.evaluation.detail import NO_CATEGORIES
from training.evaluation.metrics import view_names


def summary(manifest: Manifest) -> list[str]:
    """Sentences, the first of them on the metric that the gate compares."""
    name, metrics = DEFAULT_GATE.metric, manifest.metrics
    popular = metrics[f"{VALIDATION}_{POPULAR}"][name]
    recent = metrics.get(f"{VALIDATION}_{RECENT}", {}).get(name)
    of_weeks = (
        f"{recent:.4f} of the last {manifest.training['popularity_days']:g} days"
        if recent is not None
        else "not known of the last weeks, as the log has no times or popularity_days is none"
    )
    own = metrics[VALIDATION][name]
    sentences = [
        f"{name} on validation: {own:.4f}; popularity's: {popular:.4f} of all time, {of_weeks}"
    ]
    if own < max(popular, recent or 0):
        sentences.append("warning: it is below popularity: `publish` refuses it")
    sentences += [f"warning: {warning}" for warning in collapse_warnings(manifest)]
    if not any(known in metrics[VALIDATION] for known in view_names("categories")):
        sentences.append(NO_CATEGORIES)
    return sentences
