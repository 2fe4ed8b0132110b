"""The progress bar of a fit, on stderr."""

import sys
from contextlib import ExitStack

from tqdm import tqdm

from training.fitting.trainer import StepCallback, Trainer, TrainingState

_LOG_INTERVAL_S = 10.0  # between two updates where stderr is no terminal


def progress_bar(trainer: Trainer, bars: ExitStack) -> StepCallback:
    """A bar of the examples of a training; returns what the trainer calls after each step.

    bars: closes the bar when it is closed.
    """
    examples_per_epoch = len(trainer)
    bar = bars.enter_context(
        tqdm(
            desc="fit",
            total=examples_per_epoch * trainer.epochs,
            initial=examples_per_epoch * trainer.state.epoch,
            unit=" samples",
            unit_scale=True,
            mininterval=0.1 if sys.stderr.isatty() else _LOG_INTERVAL_S,
        )
    )

    def on_step(examples: int, progress: TrainingState) -> None:
        description = f"K = {trainer.interests}, epoch {progress.epoch + 1}"
        bar.set_description(description, refresh=False)
        best = progress.best.get(trainer.selection_metric)
        bar.set_postfix(
            {
                "loss": f"{progress.mean_loss('loss'):.4f}",
                f"best {trainer.selection_metric}": "-" if best is None else f"{best:.4f}",
            },
            refresh=False,
        )
        bar.update(examples)

    return on_step
