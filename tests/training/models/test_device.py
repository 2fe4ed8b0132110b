"""The device of a training, and what neither a manifest nor a fingerprint has of it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from index.retrieval.catalog import Catalog
from training.config import FitConfig
from training.data.packed_log import PackedLog
from training.fitting.fingerprint import fingerprint
from training.fitting.fit import prepare_log
from training.fitting.trainer import Trainer
from training.models.device import DeviceMemoryError, DeviceOptions, find_device, memory_needed

SMALL = {"encoder": "re4", "interests": 2, "dim": 8, "hidden": 8, "negatives": 50, "epochs": 2}
MISSING = f"cuda:{torch.cuda.device_count()}"


def test_auto_is_the_first_gpu_or_else_the_cpu() -> None:
    expected = "cuda:0" if torch.cuda.device_count() else "cpu"
    assert str(find_device("auto")) == expected
    assert find_device("cpu") == torch.device("cpu")


def test_a_missing_gpu_is_told_with_what_to_do() -> None:
    with pytest.raises(ValueError, match=rf"'{MISSING}': torch .* sees \d+ GPUs.*device = 'cpu'"):
        find_device(MISSING)


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "CPU", ""])
def test_an_invalid_device_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="a device is auto, cpu, cuda"):
        DeviceOptions(device=name)


def test_device_and_compilation_are_in_no_manifest_and_no_fingerprint() -> None:
    catalog = Catalog(["a"], np.array([1]), [None], [None])
    log = PackedLog(
        np.array([1], np.int32), np.array([0, 1]), np.zeros(1), np.array(["u"], dtype=object)
    )
    plain = FitConfig(device="cpu")
    other, bf16 = FitConfig(device="cuda:7", compile=True), FitConfig(precision="bf16")
    prints = [fingerprint(config, catalog, log) for config in (plain, other, bf16)]
    assert prints[0] == prints[1] != prints[2]
    assert not {"device", "compile", "precision"} & plain.model_dump(mode="json").keys()
    assert bf16.model_dump(mode="json")["precision"] == "bf16"


def test_out_of_memory_names_the_settings_to_lower(planted: Path, tmp_path: Path) -> None:
    """10^15 negatives are more than any machine has memory for."""
    config = FitConfig(**{**SMALL, "negatives": 10**15, "device": "cpu"})
    data = prepare_log(planted / "interactions.parquet", None, config)
    with pytest.raises(DeviceMemoryError, match=r"lower batch_size \(now none, here 64\), negativ"):
        Trainer(config, data.catalog, data.split, tmp_path).run()
    with pytest.raises(RuntimeError, match=r"^other$"), memory_needed("this"):
        raise RuntimeError("other")


def test_bf16_learns_as_float32_does(planted: Path, tmp_path: Path) -> None:
    metrics, losses = {}, set()
    for precision in ("float32", "bf16"):
        config = FitConfig(**SMALL, precision=precision, device="cpu")
        data = prepare_log(planted / "interactions.parquet", None, config)
        (tmp_path / precision).mkdir()
        result = Trainer(config, data.catalog, data.split, tmp_path / precision).run()
        metrics[precision] = result.metrics["recall@50"]
        losses.add(result.history[-1]["losses"]["loss"])
        assert result.vectors.dtype == np.float32
    assert len(losses) == 2
    assert metrics["bf16"] == pytest.approx(metrics["float32"], abs=0.05)


@pytest.mark.gpu
def test_a_gpu_learns_as_the_cpu_does_which_can_go_on(planted: Path, tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU: a build for the CPU, or none is there")
    config = FitConfig(**SMALL, device="cuda")
    data = prepare_log(planted / "interactions.parquet", None, config)
    for name in ("gpu", "cpu"):
        (tmp_path / name).mkdir()
    on_gpu = Trainer(config, data.catalog, data.split, tmp_path / "gpu").run()
    here = config.model_copy(update={"device": "cpu"})
    on_cpu = Trainer(here, data.catalog, data.split, tmp_path / "cpu").run()
    assert on_gpu.metrics["recall@50"] == pytest.approx(on_cpu.metrics["recall@50"], abs=0.05)
    again = Trainer(here, data.catalog, data.split, tmp_path / "gpu").run()
    np.testing.assert_array_equal(again.vectors, on_gpu.vectors)
