"""Damage to a file: flipped bits, truncation, growth, inflated lengths, runs of zeros."""

import re
from collections.abc import Callable

import numpy as np

Damage = Callable[[np.random.Generator, bytes], bytes]

# Values for a damaged length, count or offset: zero, limits of integers, and overflows.
_LENGTHS = [0, 1, 127, 255, 2**16, *(2**n - m for n in (31, 32, 40, 61, 63, 64) for m in (0, 1))]
_NUMBERS = [b"0", b"-1", b"65536", b"2147483648", b"9223372036854775808", b"1e308", b"1" * 400]
_NEAR_BYTES = 100  # mean distance from an end, where formats keep headers and footers


def flip(generator: np.random.Generator, content: bytes) -> bytes:
    """One to three bits."""
    damaged = bytearray(content)
    for _ in range(generator.integers(1, 4)):
        damaged[_position(generator, len(content))] ^= 1 << int(generator.integers(8))
    return bytes(damaged)


def cut(generator: np.random.Generator, content: bytes) -> bytes:
    return content[: int(generator.integers(len(content)))]


def grow(generator: np.random.Generator, content: bytes) -> bytes:
    return content + generator.bytes(int(generator.integers(1, 1000)))


def inflate(generator: np.random.Generator, content: bytes) -> bytes:
    """Four or eight bytes, as an integer of either byte order."""
    width = min(int(generator.choice([4, 8])), len(content))
    at = min(_position(generator, len(content)), len(content) - width)
    length = _LENGTHS[int(generator.integers(len(_LENGTHS)))] % 2 ** (8 * width)
    order = "little" if generator.random() < 0.8 else "big"
    return content[:at] + length.to_bytes(width, order) + content[at + width :]


def inflate_text(generator: np.random.Generator, content: bytes) -> bytes:
    """A number in decimal digits; if there is none, as `inflate`."""
    numbers = list(re.finditer(rb"\d+", content))
    if not numbers:
        return inflate(generator, content)
    number = numbers[int(generator.integers(len(numbers)))]
    replacement = _NUMBERS[int(generator.integers(len(_NUMBERS)))]
    return content[: number.start()] + replacement + content[number.end() :]


def zero_run(generator: np.random.Generator, content: bytes) -> bytes:
    """A run of zeros."""
    at = _position(generator, len(content))
    size = min(int(generator.geometric(0.02)), len(content) - at)
    return content[:at] + bytes(size) + content[at + size :]


DAMAGES: dict[str, Damage] = {
    "flip": flip,
    "cut": cut,
    "grow": grow,
    "inflate": inflate,
    "inflate_text": inflate_text,
    "blank": zero_run,
}


def _position(generator: np.random.Generator, size: int) -> int:
    """A random position, anywhere or near one of the ends."""
    near = min(int(generator.geometric(1 / _NEAR_BYTES)) - 1, size - 1)
    return [int(generator.integers(size)), near, size - 1 - near][int(generator.integers(3))]
