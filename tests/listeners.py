"""What listens on a port of loopback without being a server: it is frozen, or takes TLS for one."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def listening(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """Answer each connection in a thread of its own; yields the port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    def serve(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            answer(connection)

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


@contextmanager
def encrypted(certificates: Path, port: int) -> Iterator[int]:
    """Take TLS on a port, and pass what comes to another."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    context.set_alpn_protocols(["h2", "http/1.1"])

    def answer(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as near:
            far = socket.create_connection(("127.0.0.1", port))
            near.settimeout(0.02)
            far.settimeout(0.02)
            with far:
                while True:  # one thread, because a TLS socket is not for two
                    for source, sink in ((near, far), (far, near)):
                        with suppress(TimeoutError):
                            if not (part := source.recv(1 << 16)):
                                return
                            sink.sendall(part)

    with listening(answer) as taken:
        yield taken
