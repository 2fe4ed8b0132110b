"""The encoders by name, and how one is built from the arguments in a manifest."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from index.encoders.arguments import FORMER_ARGUMENTS, EncoderArguments
from index.encoders.cosine import CosineEncoder
from index.encoders.interface import Encoder
from index.encoders.score_terms import ScoreTermsEncoder

ENCODERS: dict[str, type[Encoder]] = {}
E = TypeVar("E", bound=type[Encoder])


class UnknownEncoderError(ValueError):
    """No encoder is registered under the name."""


class EncoderArgumentError(ValueError):
    """An argument is unknown to the encoder, or its value is not allowed."""


def register(name: str) -> Callable[[E], E]:
    """Register an encoder class under the name that options and manifests use."""

    def add(encoder: E) -> E:
        assert name not in ENCODERS, f"two encoders are called {name!r}: this is a bug"
        ENCODERS[name] = encoder
        return encoder

    return add


def read_arguments(name: str, arguments: Mapping[str, Any]) -> EncoderArguments:
    """The arguments of an encoder, checked; former names are read as the current ones.

    Raises UnknownEncoderError or EncoderArgumentError.
    """
    if name not in ENCODERS:
        raise UnknownEncoderError(f"encoder: no {name!r}; choose one of {', '.join(ENCODERS)}")
    current = {FORMER_ARGUMENTS.get(key, key): value for key, value in arguments.items()}
    try:
        return ENCODERS[name].Arguments.model_validate(current)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        message = first["msg"].removeprefix("Value error, ")
        place = ".".join(map(str, first["loc"]))
        raise EncoderArgumentError(f"{place}: {message}" if place else message) from error


def build_encoder(name: str, arguments: Mapping[str, Any]) -> Encoder:
    """The encoder with fresh weights, drawn from torch's global generator.

    Raises UnknownEncoderError or EncoderArgumentError.
    """
    checked = read_arguments(name, arguments)
    encoder = ENCODERS[name](checked)
    if checked.score_temperature:
        encoder = CosineEncoder(encoder, checked.score_temperature, checked.learned_temperature)
    if checked.item_bias or checked.merge != "max":
        encoder = ScoreTermsEncoder(encoder, checked.item_bias, checked.merge)
    return encoder
