"""The systems of each table and figure of the Re4 paper (Zhang et al., WWW 2022).

"Base" is Re4 without backward flows.
"""

from collections.abc import Mapping

_BASE = "re4:recontrast=0;reattend=0;reconstruct=0"
# sweep -> row label -> system
SWEEPS: Mapping[str, Mapping[str, str]] = {
    "re4-table2": {
        name: name
        for name in (
            "pop",
            "youtube-dnn",
            "gru4rec",
            "mind",
            "comirec-sa",
            "comirec-dr",
            "re4",
        )
    },
    "re4-table3": {f"K = {k}": f"re4:interests={k}" for k in (2, 4, 6, 8)},
    "re4-table4": {
        "Base": _BASE,
        "+ re-attend": "re4:recontrast=0;reconstruct=0",
        "+ re-contrast": "re4:reconstruct=0",
        "+ re-construct": "re4",
    },
    "re4-table5": {
        "gamma 1/2": "re4:gamma=0.5",
        "gamma 1/4": "re4:gamma=0.25",
        "gamma 1/16": "re4:gamma=0.0625",
        "gamma 1/32": "re4:gamma=0.03125",
        "gamma 1/length": "re4",
    },
    "re4-table6": {
        "Base": _BASE,
        **{
            f"re-{flow} {value}": f"{_BASE};re{flow}={value}"
            for flow in ("attend", "contrast", "construct")
            for value in (1, 0.1, 0.01)
        },
    },
    "re4-table7": {"Base": _BASE, "Re4": "re4"},
    "re4-fig3": {"Base": _BASE, "Re4": "re4"},
    "re4-fig4": {"Base": f"{_BASE};interests=2", "Re4": "re4:interests=2"},
}
