"""The device of the index: where the setting goes, and the error for a missing GPU."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import faiss
import httpx
import pytest

from index.release.errors import ReleaseError
from service.app import create_app
from service.serving import loader_creation
from service.settings import Settings, SetupError

pytestmark = pytest.mark.anyio

Publish = Callable[..., Path]
Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]

MISSING = "cuda:64"


async def test_the_device_reaches_the_index(
    settings: Callable[..., Settings], publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index refuses a missing device."""
    monkeypatch.setattr(loader_creation, "check_search", lambda settings: None)
    publish()
    live = create_app(settings(device=MISSING)).state.service.live
    with pytest.raises(ReleaseError, match=f"device: {MISSING}, but faiss sees"):
        await live.refresh()


def test_a_missing_device_is_refused_at_the_start(
    settings: Callable[..., Settings],
) -> None:
    with pytest.raises(SetupError) as raised:
        create_app(settings(device=MISSING))
    message = str(raised.value)
    assert message.startswith(f"--device: {MISSING}, but faiss sees")
    assert "install the extra `gpu`" in message
    assert "use the device cpu" in message


@pytest.mark.parametrize("name", ["gpu", "cuda", "cuda:", "cuda:-1", "CPU", ""])
def test_an_invalid_device_is_refused(settings: Callable[..., Settings], name: str) -> None:
    with pytest.raises(ValueError, match="a device is cpu, or cuda: and a number"):
        settings(device=name)


@pytest.mark.gpu
async def test_a_gpu_gives_the_same_answers_as_the_cpu(serve: Serve) -> None:
    if not faiss.get_num_gpus():
        pytest.skip("faiss sees no GPU: not installed with the extra `gpu`, or none is there")
    body = {"sequence": ["item-1", "item-2"], "k": 10}

    async def items(client: httpx.AsyncClient) -> list[str]:
        return [
            item["item_id"] for item in (await client.post("/recommend", json=body)).json()["items"]
        ]

    async with serve() as client:
        on_cpu = await items(client)
    async with serve(device="cuda:0") as client:
        assert await items(client) == on_cpu
