"""Several tenants of one process: what its connections and its own endpoints need of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from service.auth.authorization import Authorizer
from service.http.cross_origin import CrossOrigin
from service.http.host_check import AllowedHosts
from service.http.state import PlainHeads, ServiceState
from service.settings import Settings
from service.telemetry.logs import logged_as
from service.telemetry.metrics import RequestCounts

PREFIX = "/t/"  # of the paths of tenants, before the name


@dataclass
class TenantsState:
    """In the place of the one ServiceState. tenants: by name.

    authorizer: of what is nobody's, GET /metrics. parts: as of a ServiceState.
    """

    settings: Settings
    metrics: RequestCounts
    authorizer: Authorizer
    tenants: Mapping[str, ServiceState]
    hosts: AllowedHosts | None = None
    cross_origin: CrossOrigin | None = None
    plain_heads: PlainHeads = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.parts = {f"{PREFIX}{name}".encode(): state for name, state in self.tenants.items()}

    @property
    def draining(self) -> bool:
        return any(state.draining for state in self.tenants.values())

    @draining.setter
    def draining(self, draining: bool) -> None:
        for state in self.tenants.values():
            state.draining = draining

    @property
    def ready(self) -> int:
        """How many tenants have a release."""
        return sum(state.live.release is not None for state in self.tenants.values())

    @property
    def is_loading(self) -> bool:
        """Whether a tenant's release has been neither loaded nor refused; one may have none."""
        return any(
            state.live.release is None and state.live.failure is None
            for state in self.tenants.values()
        )

    async def load(self) -> bool:
        """Try each tenant's release; whether any is there, as one shop's fault is not another's."""
        for name, state in self.tenants.items():
            with logged_as(name):
                await state.load()
        return self.ready > 0

    async def check(self) -> None:
        """Raises SetupError if a tenant cannot be used with its settings."""
        for name, state in self.tenants.items():
            with logged_as(name):
                await state.check()
