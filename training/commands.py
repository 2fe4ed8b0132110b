"""The commands of the command line: their options, and what each one runs."""

import json
import sys
from contextlib import ExitStack
from dataclasses import asdict
from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import unquote

import torch
from pydantic import AfterValidator, BaseModel, Field
from pydantic_settings import CliPositionalArg, CliToggleFlag

from index.cli import fields_given
from index.encoders import ENCODERS
from index.release.manifest import read_manifest
from training.config import FitConfig, given_options
from training.data.event_compaction import compact_events
from training.data.log_options import LogSource
from training.data.paths import ExistingInput
from training.data.splits import ProtocolName
from training.data.synthetic import write_synthetic
from training.evaluation.detail import NO_CATEGORIES
from training.evaluation.evaluate import evaluate_release
from training.evaluation.metrics import view_names
from training.evaluation.unseen import Part
from training.experiments.baselines import BASELINES, POP_RECENT
from training.experiments.compare import TRIALS, compare, parse_setting, with_popularity
from training.experiments.paper_sweeps import SWEEPS
from training.experiments.runner import ExperimentRunner
from training.fitting import ranks
from training.fitting.candidates import Search, read_search
from training.fitting.fit import fit
from training.fitting.progress import progress_bar
from training.fitting.summary import summary
from training.models.device import DeviceOptions
from training.presets import PresetName


def _existing(path: Path) -> Path:
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder")
    return path


def _no_file(path: Path) -> Path:
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path}: a file; name a folder")
    return path


ExistingPath = Annotated[Path, AfterValidator(_existing)]
FolderPath = Annotated[Path, AfterValidator(_no_file)]
# An option of several values splits each at its commas. A setting may have commas, so the program
# quotes the settings before they are parsed.
Settings = tuple[Annotated[str, AfterValidator(unquote)], ...]
Preset = Annotated[
    PresetName,
    Field(
        "accurate",
        description="settings where none are given: the best found, or the paper's own; diverse: "
        "of encoders and K, only those whose lists differ; best is accurate",
    ),
]


def _log(message: str) -> None:
    print(message, file=sys.stderr)


class Command(BaseModel):
    """Base of the commands. Their docstrings are shown as help, so they lose their indentation."""

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        cls.__doc__ = cleandoc(cls.__doc__ or "")


if TYPE_CHECKING:
    _FitOptions = BaseModel
    _SourceOptions = BaseModel

    class _DeviceOptions(BaseModel):
        pass
else:
    _FitOptions = given_options(FitConfig)
    _SourceOptions = given_options(LogSource)
    _DeviceOptions = given_options(DeviceOptions)


class FitCommand(Command, _FitOptions):
    """Train on LOG and write a draft, whose path is the last line printed.

    LOG is a CSV or Parquet file with user_id, item_id and timestamp, or a public format. Without
    --encoder and --interests, both are chosen on validation. A fit that was interrupted continues
    when the same command is given again.
    """

    log: CliPositionalArg[ExistingInput] = Field(description="log of interactions")
    root: FolderPath = Field(description="folder of drafts and releases")
    items: ExistingInput | None = Field(None, description="file of item titles and categories")
    config: ExistingPath | None = Field(
        None, description="TOML file of the options of the fit; options given here override it"
    )
    preset: Preset
    threads: int = Field(
        1,
        ge=1,
        description="number of threads of torch; several are slow if another process needs a core",
    )

    def cli_cmd(self) -> None:
        given = fields_given(self)
        options = {name: given[name] for name in FitConfig.model_fields if name in given}
        plan = read_search(self.config, options, self.preset)
        torch.set_num_threads(self.threads)
        device = ranks.own_device(plan.first if isinstance(plan, Search) else plan)
        with ranks.joined(device), ExitStack() as bars:
            if ranks.rank() > 0:
                fit(self.log, self.root, plan, self.items)
                return
            bar, log = (lambda trainer: progress_bar(trainer, bars)), _log
            draft = fit(self.log, self.root, plan, self.items, bar, log)
        for sentence in summary(read_manifest(draft)):
            _log(sentence)
        print(draft)


def _given_of(command: BaseModel, group: type[BaseModel]) -> dict[str, Any]:
    """The options of a group, such as how LOG is read, as far as they were given."""
    given = fields_given(command)
    return {name: given[name] for name in group.model_fields if name in given}


class EvaluateCommand(Command, _SourceOptions):
    """Evaluate RELEASE (or a draft) on what it has not seen of LOG.

    The last line is one JSON object of metrics, and of what the release was trained on.

    A draft without an index is evaluated with exact search, anything else with the index it has.
    LOG is read as in the fit, unless options say otherwise.
    """

    release: CliPositionalArg[ExistingPath] = Field(description="folder of the release or draft")
    log: CliPositionalArg[ExistingInput] = Field(description="log of interactions")
    split: ProtocolName | None = Field(
        None, description="evaluation protocol; none means that of the fit"
    )
    part: Part = Field("test", description="part of the held-out users or items to evaluate on")
    exclude_seen: bool | None = Field(
        None, description="leave the items of the history out of the ranking; none means as served"
    )

    def cli_cmd(self) -> None:
        metrics, trained_on = evaluate_release(
            self.release,
            self.log,
            self.part,
            self.split,
            self.exclude_seen,
            _given_of(self, LogSource),
        )
        _log(trained_on)
        if not any(name in metrics for name in view_names("categories")):
            _log(NO_CATEGORIES)
        print(json.dumps({**metrics, "trained_on": trained_on}))


class ExperimentCommand(Command, _DeviceOptions, _SourceOptions):
    """The options of commands with several runs."""

    seeds: int = Field(3, ge=1, description="number of seeds of each system")
    settings: Settings = Field(
        (), alias="set", description="setting of all systems, KEY=VALUE; may be repeated"
    )
    items: ExistingInput | None = Field(None, description="file of item titles and categories")
    out: FolderPath = Field(description="folder of reports and of runs, which are not repeated")

    def runner(self, log: Path) -> ExperimentRunner:
        return ExperimentRunner(log, self.out, _log, self.items)

    def common(self) -> dict[str, Any]:
        """The settings of all systems. Raises ConfigError."""
        given = _given_of(self, LogSource) | _given_of(self, DeviceOptions)
        return given | dict(map(parse_setting, self.settings))


class CompareCommand(ExperimentCommand):
    """Train and evaluate systems side by side on LOG. The last line is the table's path."""

    log: CliPositionalArg[ExistingInput] = Field(description="log of interactions")
    encoders: str = Field(
        ",".join([*ENCODERS, *(name for name in BASELINES if name != POP_RECENT)]),
        description="systems, separated by commas; re4:recontrast=0;interests=4 gives one "
        "settings; popularity is compared with in any case",
    )
    split: ProtocolName = Field("unseen-users", description="evaluation protocol")
    trials: int = Field(
        2,
        ge=1,
        le=len(TRIALS),
        description="number of settings that are tried on validation for each system",
    )
    preset: Preset

    def cli_cmd(self) -> None:
        from training.experiments.interest_tables import interest_tables
        from training.experiments.report import write_comparison
        from training.experiments.user_segments import segment_table

        common = {"split": self.split} | self.common()
        runner = self.runner(self.log)
        encoders = with_popularity(runner, self.encoders.split(","), common, self.preset)
        systems = compare(runner, encoders, self.seeds, self.trials, common, self.preset)
        sections = interest_tables(systems), segment_table(runner, systems)
        print(write_comparison(self.out, systems, sections, print))


class ReproduceCommand(ExperimentCommand):
    """Rerun a table or figure of the Re4 paper on LOG."""

    name: CliPositionalArg[Literal[tuple(SWEEPS)]] = Field(description="table or figure")  # type: ignore[valid-type]
    log: CliPositionalArg[ExistingInput] = Field(description="log of interactions")
    data_set: Literal["book", "ml-1m", "gowalla"] | None = Field(
        None, description="data set of LOG, to print the paper's values beside the results"
    )

    def cli_cmd(self) -> None:
        from training.experiments.reproduce import reproduce

        common = self.common()
        runner = self.runner(self.log)
        print(reproduce(runner, self.name, self.seeds, common, self.data_set))


class NightlyCommand(Command, _DeviceOptions):
    """Train on the new events, compare with the live release, publish or refuse.

    The last line is one JSON object. Exits with 0 if a release was published, 1 if something
    failed, 3 if the gate refused, 4 if there was nothing new, 5 if another run is at work.
    """

    config: ExistingPath | None = Field(
        None, description="TOML file of the settings of the nightly run"
    )
    settings: Settings = Field(
        (),
        alias="set",
        description="setting, KEY=VALUE; fit.KEY is one of the fit, warm.KEY of a warm start; "
        "overrides the file; may be repeated",
    )
    cold: CliToggleFlag[bool] = Field(
        False, description="train from scratch, not from the live release"
    )

    def cli_cmd(self) -> None:
        from training.nightly.config import read_night_config
        from training.nightly.run import run_nightly

        overrides = [parse_setting(text) for text in self.settings]
        overrides += [(f"fit.{k}", v) for k, v in _given_of(self, DeviceOptions).items()]
        config = read_night_config(self.config, overrides + ([("cold", True)] if self.cold else []))
        torch.set_num_threads(config.threads)
        outcome = run_nightly(config, _log)
        _log(outcome.sentence)
        print(json.dumps(outcome.to_json()))
        sys.exit(outcome.exit_code)


class CompactEventsCommand(Command):
    """Erase from the exported events what forgotten users did before they were forgotten.

    The last line is one JSON object: rows erased, files rewritten and removed. Killed and started
    again, it ends with the same files. Nightly runs do this, too.
    """

    events: ExistingPath = Field(description="folder of date=YYYY-MM-DD folders of Parquet files")

    def cli_cmd(self) -> None:
        print(json.dumps(asdict(compact_events(self.events))))


class SyntheticCommand(Command):
    """Write interactions.parquet and items.parquet with planted interests."""

    out: FolderPath = Field(description="folder for interactions and items")
    users: int = Field(2000, ge=10, description="number of users")
    items: int = Field(1000, ge=50, description="number of items")
    seed: int = Field(0, ge=0, description="seed of all draws")
    control: CliToggleFlag[bool] = Field(
        False, description="without structure: there are no interests to find"
    )

    def cli_cmd(self) -> None:
        write_synthetic(self.out, self.users, self.items, self.seed, self.control)
        print(self.out / "interactions.parquet")
