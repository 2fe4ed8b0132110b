"""One server process: the app, uvicorn's protocol and the server, put together."""

from service.settings import Settings


def run_server(settings: Settings, wait_for_release: bool = False) -> None:
    """Answer requests until SIGTERM or SIGINT.

    wait_for_release: listen only once a release is loaded, as other workers answer at the address.
    Raises EmbeddedRedisError or SetupError.
    """
    # Not at the top: a supervisor passes this function to its workers, and loads none of these.
    from service.app import create_app
    from service.http.load_shedding import SheddingProtocol
    from service.serving.server import serve

    serve(settings, create_app, SheddingProtocol, wait_for_release)
