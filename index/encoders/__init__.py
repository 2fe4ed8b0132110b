"""Rows of a history -> K interest vectors: the forward flow, and all of a model that is shipped.

Notation for shapes, here and in the families: B batch, L history length, K interests, D dimension.
"""

from collections.abc import Mapping
from typing import Any

from index.encoders.attention import ComirecSaEncoder, Re4Encoder
from index.encoders.capsule import ComirecDrEncoder, MindEncoder
from index.encoders.cosine import Cosine
from index.encoders.interface import Encoder, History, Interests
from index.encoders.single import Gru4RecEncoder, SasRecEncoder, YoutubeDnnEncoder
from index.encoders.timirec import TimirecEncoder

ENCODERS: Mapping[str, type[Encoder]] = {
    "re4": Re4Encoder,
    "comirec-sa": ComirecSaEncoder,
    "comirec-dr": ComirecDrEncoder,
    "mind": MindEncoder,
    "timirec": TimirecEncoder,
    "youtube-dnn": YoutubeDnnEncoder,
    "gru4rec": Gru4RecEncoder,
    "sasrec": SasRecEncoder,
}


class UnknownEncoderError(ValueError):
    """No encoder has the name asked for."""


def build_encoder(name: str, arguments: Mapping[str, Any]) -> Encoder:
    """The encoder called `name` with fresh weights, drawn from torch's global generator.

    score_temperature, an argument that every encoder takes: of cosine scores; without it, scores
    are inner products. Releases made before 2026-11-28 call it `cosine`.
    """
    if name not in ENCODERS:
        raise UnknownEncoderError(f"encoder: no {name!r}; choose one of {', '.join(ENCODERS)}")
    own = dict(arguments)
    temperature = own.pop("score_temperature", own.pop("cosine", None))
    encoder = ENCODERS[name](**own)
    return encoder if temperature is None else Cosine(encoder, temperature)


__all__ = ["ENCODERS", "Encoder", "History", "Interests", "UnknownEncoderError", "build_encoder"]
