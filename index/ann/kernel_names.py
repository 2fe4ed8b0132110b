"""The names of the kernels, for settings that must not import torch."""

from typing import Literal

KernelName = Literal[
    "native-avx512-vnni",
    "native-avx-vnni",
    "native-avx2",
    "native-portable",
    "int8-vnni",
    "int8-fbgemm",
    "float32",
]
