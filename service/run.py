"""One server process: the app, uvicorn's protocol and the server, put together."""

from functools import partial

from service.settings import Settings
from service.tenants import Tenants


def run_server(
    settings: Settings, wait_for_release: bool = False, tenants: Tenants | None = None
) -> None:
    """Answer requests until SIGTERM or SIGINT.

    tenants: several to serve, in place of the releases of the settings. wait_for_release: listen
    only once a release is loaded, as other workers answer at the address.
    Raises EmbeddedRedisError or SetupError.
    """
    # Not at the top: a supervisor passes this function to its workers, and loads none of these.
    from service.app import create_app
    from service.http.load_shedding import SheddingProtocol
    from service.serving.server import serve
    from service.tenant_apps import create_tenants_app

    create = partial(create_tenants_app, tenants=tenants) if tenants else create_app
    serve(settings, create, SheddingProtocol, wait_for_release)
