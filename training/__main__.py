"""python -m training fit | evaluate | compare | reproduce | nightly | synthetic"""

import json
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import click
import torch
from pydantic.fields import FieldInfo
from tqdm import tqdm

from index.encoders import ENCODERS
from index.release.errors import ReleaseError
from training.config import ConfigError, FitConfig, read_config
from training.data.interactions import LogError
from training.data.synthetic import write_synthetic
from training.evaluation.evaluate import Part, evaluate_release
from training.evaluation.protocols import ProtocolName
from training.experiments.compare import POP, TRIALS, compare, parse_setting
from training.experiments.paper_sweeps import SWEEPS
from training.experiments.runner import ExperimentRunner
from training.fitting.fit import fit
from training.fitting.malloc import keep_freed_memory
from training.fitting.trainer import DivergedError, StepCallback, Trainer, TrainingState
from training.presets import PresetName

_IN = click.Path(exists=True, path_type=Path)
_OUT = click.Path(file_okay=False, path_type=Path)
_LOGGED_S = 10.0  # between two lines of progress that nobody watches


class _Commands(click.Group):
    """Refusals are one sentence and an exit code, not a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (ConfigError, DivergedError, LogError, ReleaseError, OSError) as error:
            raise click.ClickException(str(error)) from error


def _click_type(annotation: Any) -> Any:
    if get_origin(annotation) is Literal:
        return click.Choice(get_args(annotation))
    if get_origin(annotation) in (Union, UnionType):
        return next(a for a in get_args(annotation) if a is not type(None))
    return annotation


def _option(name: str, field: FieldInfo) -> Callable[[Any], Any]:
    several = get_origin(field.annotation) is tuple
    default = "all" if several else field.default
    return click.option(
        f"--{name.replace('_', '-')}",
        name,
        type=str if several else _click_type(field.annotation),
        multiple=several,
        help=f"{field.description}  [default: {'none' if default is None else default}]",
    )


def _fit_options(command: Any) -> Any:
    """An option a field of FitConfig; those not given are left to --config and the defaults."""
    for name, field in reversed(FitConfig.model_fields.items()):
        command = _option(name, field)(command)
    return command


@click.group(cls=_Commands)
def main() -> None:
    """From a log to a draft."""
    keep_freed_memory()
    torch.set_num_threads(1)


_PRESET = click.option(
    "--preset",
    type=click.Choice(get_args(PresetName)),
    default="best",
    show_default=True,
    help="settings where none are given: the best found, or the paper's own",
)


@main.command("fit")
@click.argument("log", type=_IN)
@click.option("--root", type=_OUT, required=True, help="folder of drafts and releases")
@click.option("--items", type=_IN, help="file of item titles and categories")
@click.option("--config", "config_file", type=_IN, help="TOML file of the options below; flags win")
@_PRESET
@click.option(
    "--threads",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="of torch; more than one crawl where another process wants a core",
)
@_fit_options
def fit_command(
    log: Path,
    root: Path,
    items: Path | None,
    config_file: Path | None,
    preset: PresetName,
    threads: int,
    **options: Any,
) -> None:
    """Train on LOG and write a draft, whose path is the last line printed.

    LOG is a CSV or Parquet file with user_id, item_id and timestamp, or a public format. A fit that
    was interrupted continues when the same command is given again.
    """
    given = {name: value for name, value in options.items() if value not in (None, ())}
    config = read_config(config_file, given, preset)
    torch.set_num_threads(threads)
    with ExitStack() as bars:
        draft = fit(log, root, config, items, lambda trainer: _progress_bar(trainer, bars))
    click.echo(draft)


def _progress_bar(trainer: Trainer, bars: ExitStack) -> StepCallback:
    per_epoch = len(trainer)
    bar = bars.enter_context(
        tqdm(
            desc="fit",
            total=per_epoch * trainer.epochs,
            initial=per_epoch * trainer.state.epoch,
            unit=" samples",
            unit_scale=True,
            mininterval=0.1 if sys.stderr.isatty() else _LOGGED_S,
        )
    )

    def on_step(examples: int, state: TrainingState) -> None:
        told = f"K = {trainer.interests}, epoch {state.epoch + 1}"
        bar.set_description(told, refresh=False)
        best = state.best.get(trainer.select_on)
        bar.set_postfix(
            {
                "loss": f"{state.mean_loss('loss'):.4f}",
                f"best {trainer.select_on}": "-" if best is None else f"{best:.4f}",
            },
            refresh=False,
        )
        bar.update(examples)

    return on_step


@main.command("evaluate")
@click.argument("release", type=_IN)
@click.argument("log", type=_IN)
@click.option(
    "--split",
    type=click.Choice(get_args(ProtocolName)),
    help="protocol  [default: the one the release was fitted with]",
)
@click.option("--format", default="auto", show_default=True, help="file format of the log")
@click.option("--part", type=click.Choice(get_args(Part)), default="test", show_default=True)
def evaluate_command(
    release: Path, log: Path, split: ProtocolName | None, format: str, part: Part
) -> None:
    """Evaluate RELEASE (or a draft) on LOG. The last line is one JSON object of metrics.

    A draft without an index is evaluated with exact search, anything else with the index it has.
    """
    click.echo(json.dumps(evaluate_release(release, log, part, format, split)))


_SEEDS = click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
_KEPT = click.option(
    "--out", type=_OUT, required=True, help="folder of runs, which are made once, and of reports"
)
_SET = click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="setting of fit, for all systems"
)


_ITEMS = click.option("--items", type=_IN, help="item file with title and category")


def _runner(log: Path, out: Path, items: Path | None) -> ExperimentRunner:
    return ExperimentRunner(log, out, lambda text: click.echo(text, err=True), items)


@main.command("compare")
@click.argument("log", type=_IN)
@click.option(
    "--encoders",
    default=",".join([*ENCODERS, POP]),
    show_default=True,
    help="systems, with commas between; re4:recontrast=0;interests=4 for settings of one",
)
@_SEEDS
@click.option("--split", type=click.Choice(get_args(ProtocolName)), default="unseen-users")
@click.option(
    "--trials",
    type=click.IntRange(1, len(TRIALS)),
    default=2,
    show_default=True,
    help="settings tried on validation for each system",
)
@_PRESET
@_SET
@_ITEMS
@_KEPT
def compare_command(
    log: Path,
    encoders: str,
    seeds: int,
    split: ProtocolName,
    trials: int,
    preset: PresetName,
    settings: tuple[str, ...],
    items: Path | None,
    out: Path,
) -> None:
    """Train and evaluate systems side by side on LOG. The last line is the table's path."""
    from training.experiments.report import write_comparison
    from training.experiments.user_segments import segment_table

    common = {"split": split} | dict(map(parse_setting, settings))
    runner = _runner(log, out, items)
    systems = compare(runner, encoders.split(","), seeds, trials, common, preset)
    click.echo(write_comparison(out, systems, segment_table(runner, systems), click.echo))


@main.command("reproduce")
@click.argument("name", type=click.Choice(list(SWEEPS)))
@click.argument("log", type=_IN)
@_SEEDS
@click.option(
    "--data-set",
    type=click.Choice(["book", "ml-1m", "gowalla"]),
    help="what LOG is, to have the paper's printed values beside ours",
)
@_SET
@_ITEMS
@_KEPT
def reproduce_command(
    name: str,
    log: Path,
    seeds: int,
    data_set: str | None,
    settings: tuple[str, ...],
    items: Path | None,
    out: Path,
) -> None:
    """Rerun a table or figure of the Re4 paper on LOG."""
    from training.experiments.reproduce import reproduce

    common = dict(map(parse_setting, settings))
    click.echo(reproduce(_runner(log, out, items), name, seeds, common, data_set))


@main.command("nightly")
@click.option("--config", "config_file", type=_IN, help="TOML file of the night's settings")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="a setting; those of the fit as fit.KEY, of a warm one as warm.KEY; these win",
)
@click.option("--cold", is_flag=True, help="from scratch, not from the live release")
@click.pass_context
def nightly_command(
    ctx: click.Context, config_file: Path | None, settings: tuple[str, ...], cold: bool
) -> None:
    """Train on what was heard since, compare with the live release, publish or refuse.

    The last line is one JSON object. Exits with 0 if a release was published, 1 if something
    failed, 3 if the gate refused, 4 if there was nothing new, 5 if another night is at work.
    """
    from training.nightly.config import read_night
    from training.nightly.run import run_nightly

    overrides = [parse_setting(text) for text in settings] + ([("cold", True)] if cold else [])
    config = read_night(config_file, overrides)
    torch.set_num_threads(config.threads)
    outcome = run_nightly(config, lambda text: click.echo(text, err=True))
    click.echo(outcome.sentence, err=True)
    click.echo(json.dumps(outcome.to_json()))
    ctx.exit(outcome.exit_code)


@main.command("synthetic")
@click.option("--out", type=_OUT, required=True, help="folder for interactions and items")
@click.option("--users", type=click.IntRange(10), default=2000, show_default=True)
@click.option("--items", type=click.IntRange(50), default=1000, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--control", is_flag=True, help="the same without structure: nothing to be found")
def synthetic_command(out: Path, users: int, items: int, seed: int, control: bool) -> None:
    """Write interactions.parquet and items.parquet with planted interests."""
    write_synthetic(out, users, items, seed, control)
    click.echo(out / "interactions.parquet")


if __name__ == "__main__":
    main(prog_name="python -m training")
