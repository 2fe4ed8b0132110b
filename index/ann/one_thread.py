"""Time with one thread, as in a server, where each thread answers its own requests."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

import faiss  # isort: skip  (after torch)


@contextmanager
def one_thread() -> Iterator[None]:
    """torch and faiss use one thread. That of faiss is for calls of this thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with _faiss_threads(1):
            yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def all_processors() -> Iterator[None]:
    """faiss uses every processor that this process may use."""
    with _faiss_threads(len(os.sched_getaffinity(0))):
        yield


@contextmanager
def _faiss_threads(count: int) -> Iterator[None]:
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)
