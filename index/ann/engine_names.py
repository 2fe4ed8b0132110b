"""The engines that can hold an index, and the URI of one. Imports nothing, for settings."""

from typing import Literal

EngineName = Literal["faiss", "milvus"]
_SCHEMES = ("http://", "https://", "tcp://", "unix:")


def check_engine(engine: EngineName, uri: str | None, processes: int = 1) -> None:
    """Raises ValueError, which does not show the URI, unless they fit each other."""
    if engine == "faiss" and uri is not None:
        raise ValueError("--engine-uri: is of --engine milvus; give that, or leave the URI out")
    if engine == "milvus":
        if uri is None:
            raise ValueError("--engine-uri: --engine milvus needs the URI of the Milvus; give it")
        check_uri(uri)
        if is_local(uri) and processes > 1:
            raise ValueError(
                f"--engine-uri: a local file is for one process, not for {processes} workers; "
                "give one, or run `milvus-lite server` or Milvus and give its http:// address"
            )


def check_uri(uri: str) -> None:
    """Raises ValueError, which does not show the URI, unless it can be one of a Milvus."""
    if not (is_local(uri) or uri.startswith(_SCHEMES)):
        raise ValueError(
            "--engine-uri: give http://HOST:19530/DATABASE, or https://USER:PASSWORD@HOST, or a "
            "local path that ends with .db for milvus-lite in this process"
        )


def is_local(uri: str) -> bool:
    """Whether the URI is a path, whose data only one process at a time can use."""
    return uri.endswith(".db") and not uri.startswith(_SCHEMES)
