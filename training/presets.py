"""Named settings of an encoder. Settings that a preset leaves out have FitConfig's defaults.

accurate: the best settings found in general: FitConfig's defaults, except for encoders that need a
training of their own; best is an older name of it. diverse: the same settings. The two differ in
what a search among CANDIDATES chooses. paper: the settings of the encoder's paper.
"""

from collections.abc import Mapping
from typing import Any, Literal

PresetName = Literal["accurate", "diverse", "best", "paper"]

_SOFTMAX = {"objective": "softmax", "dropout": 0.0, "weight_decay": 1e-6}
_COMIREC = _SOFTMAX | {"sampler": "log-uniform", "negatives": 1280, "learning_rate": 0.001}

_PAPER: Mapping[str, dict[str, Any]] = {
    "re4": _SOFTMAX
    | {
        "negatives": 5000,
        "learning_rate": 0.003,
        "weight_decay": 1e-5,
        "recontrast": 0.1,
        "reattend": 0.1,
        "reconstruct": 0.1,
    },
    "comirec-sa": _COMIREC,
    "comirec-dr": _COMIREC | {"learning_rate": 0.005},
    "mind": _COMIREC,
    "youtube-dnn": _COMIREC,
    "gru4rec": _COMIREC,
    "sasrec": _COMIREC,
    "timirec": {
        "objective": "target-interest",
        "hidden": 8,
        "interests": 4,
        "learning_rate": 1e-4,
        "weight_decay": 1e-6,
        "dropout": 0.0,
        "batch_size": 256,
        "pretrain_epochs": 10,
        "distillation_temperature": 0.1,
    },
}

# All positions in one pass and sampled softmax, as in eSASRec (RecSys 2025). Of ours are cosines,
# and item vectors that begin with what is taken together: they need few epochs.
_ALL_POSITIONS: Mapping[str, Any] = {
    "positions": "all",
    "score_temperature": 0.1,
    "item_init": "co-occurrence",
    "dim": 128,
    "history": 50,
    "layers": 1,
    "heads": 1,
    "dropout": 0.5,
    "negatives": 512,
    "learning_rate": 0.002,
    "learning_rate_schedule": "linear",
    "epochs": 24,
    "patience": 10,
}

_BEST: Mapping[str, Mapping[str, Any]] = {
    # interests None: two values are tried, see training.fitting.select_interests.
    "re4": {"interests": None, "recency": True, "score_temperature": 0.15},
    "timirec": _PAPER["timirec"] | {"learning_rate": 0.001},
    "linear": {"interests": 1, "history": 200, "history_decay": 0.9},
    "sasrec": {**_ALL_POSITIONS, "layers": 2},
    "transformer": {
        **_ALL_POSITIONS,
        "interests": 1,
        "expansion": 1,
        "batch_size": 512,
        "negatives": 800,
    },
}

# What a fit chooses from if neither encoder nor K is given, the most preferred first. A candidate
# has the preset of its encoder; these settings say what it is, and one that is given otherwise
# rules it out. The names are those of folders.
CANDIDATES: Mapping[str, Mapping[str, Any]] = {
    "re4-8": {"encoder": "re4", "interests": 8},
    "transformer-8": {"encoder": "transformer", "interests": 8, "objective": "served-max"},
    "linear-recent": {"encoder": "linear", "interests": 1, "history_decay": 0.9, "history": 200},
    "linear-bag": {"encoder": "linear", "interests": 1, "history_decay": 1.0, "history": 1000},
    "transformer-1": {"encoder": "transformer", "interests": 1, "objective": "served-max"},
    # For histories of hundreds of items: on ml-1m it is far above transformer-1.
    "transformer-long-1": {
        "encoder": "transformer",
        "interests": 1,
        "objective": "served-max",
        "history": 200,
        "layers": 2,
        "heads": 2,
        "dim": 128,
        "expansion": 2,
        "dropout": 0.2,
        "batch_size": 1024,
        "negatives": 512,
        "learning_rate": 0.002,
    },
    "re4-1": {"encoder": "re4", "interests": 1},
    "transformer-gated-4": {
        "encoder": "transformer",
        "interests": 4,
        "objective": "gated-max",
        "mutual_information": 0.1,
    },
    "transformer-partitioned-4": {
        "encoder": "transformer",
        "interests": 4,
        "objective": "partitioned-max",
    },
    "transformer-matching-8": {
        "encoder": "transformer",
        "interests": 8,
        "objective": "set-matching",
    },
    "re4-4": {"encoder": "re4", "interests": 4},
    "re4-2": {"encoder": "re4", "interests": 2},
}

# What `diverse` chooses from. Mutual information takes the lists of eight interests from four
# distinct items in ten to more than five. Interests of clusters cost accuracy, and no training.
DIVERSE_CANDIDATES: Mapping[str, Mapping[str, Any]] = {
    "transformer-distinct-8": {**CANDIDATES["transformer-8"], "mutual_information": 0.1},
    **{name: settings for name, settings in CANDIDATES.items() if settings["interests"] > 1},
    **{
        f"{name}-4": {**CANDIDATES[name], "interests": 4, "own_share": 1.0}
        for name in ("linear-recent", "linear-bag")
    },
}


def preset_of(name: PresetName, encoder: str) -> Mapping[str, Any]:
    return (_PAPER if name == "paper" else _BEST).get(encoder, {})
