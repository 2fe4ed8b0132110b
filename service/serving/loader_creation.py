"""The loader of releases, and the engine that searches them, as the settings name them."""

from importlib.util import find_spec

from index.ann.gpu import make_cloner
from index.ann.kernel_choice import find_kernel
from index.ann.milvus_engine import MilvusEngine
from service.serving.guarded_engine import GuardedEngine
from service.serving.release_loader import ReleaseLoader
from service.settings import Settings, SetupError
from service.store.circuit_breaker import CircuitBreaker
from service.telemetry.metrics import Metrics


def check_search(settings: Settings) -> None:
    """Raises SetupError if the device does not exist, or the kernel does not work.

    At the start, not when a release is loaded.
    """
    try:
        find_kernel(settings.kernel)
        if settings.device != "cpu":
            make_cloner(settings.device)
    except ValueError as error:
        raise SetupError(f"--{error}") from error


def create_loader(settings: Settings, metrics: Metrics) -> ReleaseLoader:
    """With the engine that the settings name, if it is not the files of the releases.

    Raises SetupError if that engine, the device or the kernel cannot be used.
    """
    check_search(settings)
    engine = None
    if settings.engine_uri is not None:
        if find_spec("pymilvus") is None:
            raise SetupError(
                "--engine milvus: pymilvus is not installed; run: pip install 're4[milvus]'"
            )
        uri, timeout_s = settings.engine_uri.get_secret_value(), settings.engine_timeout_ms / 1000
        breaker = CircuitBreaker(settings.breaker_threshold, settings.breaker_cooldown_s)
        engine = GuardedEngine(MilvusEngine(uri, timeout_s), breaker)
        metrics.add_gauge_callback(metrics.engine_circuit_open, lambda: breaker.is_open)
    return ReleaseLoader(
        settings.releases, metrics, device=settings.device, kernel=settings.kernel, engine=engine
    )
