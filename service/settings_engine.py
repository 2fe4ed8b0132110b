"""The settings of the engine, a part of the service's: search, queue and batches."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, SecretStr

from index.ann.engine_names import EngineName
from index.ann.kernel_names import KernelName
from service.settings_types import Device


class EngineSettings(BaseModel):
    device: Device = Field(
        "cpu",
        description="device of the item search, and of encoders that torch computes: cpu, or a GPU "
        "such as cuda:0 (needs the extra gpu)",
    )
    engine: EngineName = Field(
        "faiss",
        description="milvus also serves releases with their index there (needs the extra milvus)",
    )
    engine_uri: SecretStr | None = Field(
        None,
        description="the Milvus: http://HOST:19530/DATABASE, https://USER:PASSWORD@HOST, or, for "
        "one worker, a path that ends with .db for milvus-lite in its process",
    )
    engine_uri_file: Path | None = Field(None, description="file that holds engine-uri")
    engine_timeout_ms: int = Field(
        200, ge=1, description="milliseconds that a search there may take"
    )
    kernel: Literal["auto", KernelName] = Field(
        "auto",
        description="kernel of the item search on the CPU; auto measures which is fastest, once",
    )
    max_queue_size: int = Field(
        256, ge=1, description="requests that may wait for the engine; more get 503"
    )
    max_batch_size: int = Field(16, ge=1, description="requests in one batch of the engine")
    deadline_ms: int = Field(
        250, ge=1, description="milliseconds until a request is answered, or refused with 503"
    )
    interest_overlap_sample_rate: float = Field(
        0.002,
        ge=0,
        le=1,
        description="share of requests that measure the overlap of the interests' hits, "
        "at the cost of one more search each",
    )
