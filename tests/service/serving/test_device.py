"""What items are searched on: where the setting goes, and what is said of a GPU that is away."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import faiss
import httpx
import pytest

from index.release.errors import ReleaseError
from service import app as app_module
from service.app import create_app
from service.settings import Settings, SetupError

pytestmark = pytest.mark.anyio

Publish = Callable[..., Path]
Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]

MISSING = "cuda:64"


async def test_it_reaches_the_index(
    settings: Callable[..., Settings], publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which refuses one that is not there."""
    monkeypatch.setattr(app_module, "_check_device", lambda device: None)
    publish()
    live = create_app(settings(device=MISSING)).state.service.live
    with pytest.raises(ReleaseError, match=f"device: {MISSING}, but faiss sees"):
        await live.refresh()


def test_one_that_is_not_there_is_refused_at_the_start(
    settings: Callable[..., Settings],
) -> None:
    with pytest.raises(SetupError) as refused:
        create_app(settings(device=MISSING))
    told = str(refused.value)
    assert told.startswith(f"--device: {MISSING}, but faiss sees")
    assert "install the extra `gpu`" in told
    assert "use the device cpu" in told


@pytest.mark.parametrize("name", ["gpu", "cuda", "cuda:", "cuda:-1", "CPU", ""])
def test_what_is_no_device_is_refused(settings: Callable[..., Settings], name: str) -> None:
    with pytest.raises(ValueError, match="a device is cpu, or cuda: and a number"):
        settings(device=name)


@pytest.mark.gpu
async def test_a_gpu_answers_as_the_processor_does(serve: Serve) -> None:
    if not faiss.get_num_gpus():
        pytest.skip("faiss sees no GPU: not installed with the extra `gpu`, or none is there")
    asked = {"sequence": ["item-1", "item-2"], "k": 10}

    async def items(client: httpx.AsyncClient) -> list[str]:
        return [
            item["item_id"]
            for item in (await client.post("/recommend", json=asked)).json()["items"]
        ]

    async with serve() as client:
        on_cpu = await items(client)
    async with serve(device="cuda:0") as client:
        assert await items(client) == on_cpu
