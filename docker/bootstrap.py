"""Train and publish the first release if there is none: a training run without a live release.

It is trained on the log that night.toml names. If that file is missing and lies in the stack's own
folder, a synthetic log is written there first.
"""

import sys
from pathlib import Path

import torch

from index.release.manifest import RELEASES
from index.release.reading import read_current
from training.data.synthetic import write_synthetic
from training.fitting.malloc import keep_freed_memory
from training.nightly.config import read_night_config
from training.nightly.run import run_nightly


def bootstrap(config_file: Path) -> int:
    """An exit code: 0 if the service may start. Raises ConfigError or ReleaseError.

    The service may start without a release if the log is too small: events will extend it.
    """
    config = read_night_config(config_file)
    if (live := read_current(config.root)) is not None:
        print(f"{live} is live")
        return 0
    (config.root / RELEASES).mkdir(parents=True, exist_ok=True)  # the service refuses other folders
    log = config.log
    if log is not None and not log.exists() and config.root in log.parents:
        print(f"{log}: no such file; writing a synthetic log", flush=True)
        write_synthetic(log.parent)
    torch.set_num_threads(config.threads)
    keep_freed_memory()
    outcome = run_nightly(config, lambda message: print(message, flush=True))
    print(outcome.sentence)
    return 0 if outcome.outcome == "nothing-new" else outcome.exit_code


if __name__ == "__main__":
    sys.exit(bootstrap(Path(sys.argv[1])))
