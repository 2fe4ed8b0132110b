"""The address that the service listens on, and the sentence for one that it cannot have."""

from socket import AF_INET, AF_INET6, create_server, socket

from service.settings import SetupError


def listening_socket(host: str, port: int, shared: bool = False) -> socket:
    """shared: other sockets with that option may listen there too. Raises OSError."""
    family = AF_INET6 if ":" in host else AF_INET
    return create_server((host, port), family=family, reuse_port=shared)


def address_refused(host: str, port: int, error: OSError) -> SetupError:
    return SetupError(
        f"--host {host} --port {port}: cannot be used ({error}); end the program that listens "
        "there, or give another address"
    )
