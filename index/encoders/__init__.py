"""Encoders: rows of a history -> K interest vectors. All of a model that is shipped.

Every module of this package is imported here, so an encoder is one file: a class with `Arguments`,
registered under its name. The order of the modules' names is the order of ENCODERS.
"""

from importlib import import_module
from pkgutil import iter_modules

from index.encoders.interface import (
    Encoder,
    History,
    Interests,
    ServedHistory,
    ServedInterests,
)
from index.encoders.registry import (
    ENCODERS,
    EncoderArgumentError,
    UnknownEncoderError,
    build_encoder,
    read_arguments,
)

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = [
    "ENCODERS",
    "Encoder",
    "EncoderArgumentError",
    "History",
    "Interests",
    "ServedHistory",
    "ServedInterests",
    "UnknownEncoderError",
    "build_encoder",
    "read_arguments",
]
