"""HTTP as bytes on a socket, for what no client library would send."""

import socket


def post(
    path: str = "/recommend", *headers: str, body: bytes = b'{"sequence":["item-1"]}'
) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: localhost", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Connection:
    """One connection, from which one response after the other is read."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._file = self._socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def read_response(self) -> tuple[int, dict[str, str], bytes]:
        status = int(self._file.readline().split()[1])
        if status == 100:  # the final response follows
            self._file.readline()
            return self.read_response()
        headers: dict[str, str] = {}
        while line := self._file.readline().decode().strip():
            name, _, value = line.partition(": ")
            headers[name.lower()] = value
        return status, headers, self._file.read(int(headers["content-length"]))

    def is_closed(self) -> bool:
        return self._file.read() == b""

    def close(self) -> None:
        self._file.close()
        self._socket.close()
