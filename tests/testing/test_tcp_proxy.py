"""The proxy does to connections what it is told, and nothing else."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from sage_actor.testing import TcpProxy
from sage_actor.testing.tcp_proxy import Direction

PATIENCE = 10.0


class EchoServer:
    """Answers every piece with a prefix and itself; one thread a connection."""

    def __init__(self, prefix: bytes = b"") -> None:
        self.prefix = prefix
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"echo://user:secret@127.0.0.1:{self._listener.getsockname()[1]}/7?x=1"
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(connection,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while piece := connection.recv(65536):
                connection.sendall(self.prefix + piece)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in (self._accepting, *self._threads):
            thread.join(PATIENCE)


@pytest.fixture
def server() -> Iterator[EchoServer]:
    started = EchoServer()
    yield started
    started.close()


@pytest.fixture
def proxy(server: EchoServer) -> Iterator[TcpProxy]:
    with TcpProxy.before(server.url) as entered:
        yield entered


def connect(proxy: TcpProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE)


def receive(connection: socket.socket, count: int) -> bytes:
    received = b""
    while len(received) < count and (piece := connection.recv(count - len(received))):
        received += piece
    return received


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline


def test_without_orders_it_carries_everything_both_ways(proxy: TcpProxy) -> None:
    content = bytes(range(256)) * 4000
    with connect(proxy) as connection:
        sending = threading.Thread(target=connection.sendall, args=(content,))
        sending.start()
        assert receive(connection, len(content)) == content
        sending.join()
        assert proxy.connections == proxy.accepted == 1
        assert proxy.passed("to_server") == proxy.passed("to_client") == len(content)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""  # the end goes through as well, there and back
    until(lambda: proxy.connections == 0)


def test_the_url_keeps_all_but_the_place(proxy: TcpProxy, server: EchoServer) -> None:
    assert proxy.instead_of(server.url) == f"echo://user:secret@127.0.0.1:{proxy.port}/7?x=1"


@pytest.mark.parametrize("direction", ["to_server", "to_client", None])
def test_a_delay_keeps_order(proxy: TcpProxy, direction: Direction | None) -> None:
    with connect(proxy) as connection:
        proxy.delay(0.05, direction)
        begun = time.monotonic()
        connection.sendall(b"first")
        assert receive(connection, 5) == b"first"
        assert time.monotonic() - begun >= (0.1 if direction is None else 0.05)
        connection.sendall(b"second")
        proxy.delay(0.0)
        connection.sendall(b"third")
        assert receive(connection, 11) == b"secondthird"


def test_a_stalled_proxy_holds_bytes_and_lets_them_go(proxy: TcpProxy) -> None:
    with connect(proxy) as connection:
        proxy.stall("to_client")
        connection.sendall(b"kept")
        until(lambda: proxy.passed("to_server") == 4)
        with connect(proxy) as other:
            other.sendall(b"also")
            until(lambda: proxy.passed("to_server") == 8)
            assert proxy.passed("to_client") == 0
            proxy.resume()
            assert receive(connection, 4) == b"kept"
            assert receive(other, 4) == b"also"


def test_a_stalled_proxy_fills_up_and_stops_reading(proxy: TcpProxy) -> None:
    with connect(proxy) as connection:
        proxy.stall()
        connection.setblocking(False)
        sent, piece = 0, bytes(1 << 16)
        with pytest.raises(BlockingIOError):
            while sent < 1 << 30:
                sent += connection.send(piece)
        assert proxy.passed("to_server") == 0
        proxy.cut()
    until(lambda: proxy.connections == 0)


def test_a_limit_sets_the_pace_and_its_end_is_seen_at_once(proxy: TcpProxy) -> None:
    with connect(proxy) as connection:
        proxy.limit(1000.0, "to_client")
        begun = time.monotonic()
        connection.sendall(bytes(100))
        receive(connection, 100)
        assert time.monotonic() - begun >= 0.08  # the last slice is paid for after it
        connection.sendall(bytes(50_000))  # would take 50 seconds
        receive(connection, 20)
        proxy.limit(None)
        assert len(receive(connection, 49_980)) == 49_980


def test_a_cut_resets_every_connection_and_new_ones_work(proxy: TcpProxy) -> None:
    with connect(proxy) as first, connect(proxy) as second:
        for connection in (first, second):
            connection.sendall(b"x")
            assert receive(connection, 1) == b"x"
        assert proxy.cut() == 2
        for connection in (first, second):
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(1) == b""
    with connect(proxy) as third:
        third.sendall(b"y")
        assert receive(third, 1) == b"y"
        assert proxy.accepted == 3


def test_a_cut_to_come_lets_so_many_bytes_through(proxy: TcpProxy) -> None:
    with connect(proxy) as connection:
        proxy.cut_after(3, "to_client")
        connection.sendall(b"abcdef")
        came = b""
        with contextlib.suppress(ConnectionResetError):
            came = receive(connection, 6)
        assert came in {b"", b"abc"}  # a reset may overtake what the program has not read
        assert proxy.passed("to_client") == 3
    with connect(proxy) as connection:  # once
        connection.sendall(b"abcdef")
        assert receive(connection, 6) == b"abcdef"


def test_a_refusing_proxy_resets_newcomers_only(proxy: TcpProxy) -> None:
    with connect(proxy) as connection:
        connection.sendall(b"x")
        assert receive(connection, 1) == b"x"
        proxy.refuse()
        with contextlib.suppress(ConnectionResetError), connect(proxy) as newcomer:
            assert newcomer.recv(1) == b""
        connection.sendall(b"y")
        assert receive(connection, 1) == b"y"
        proxy.accept()
        with connect(proxy) as newcomer:
            newcomer.sendall(b"z")
            assert receive(newcomer, 1) == b"z"


def test_new_connections_go_where_it_is_redirected_to(proxy: TcpProxy) -> None:
    other = EchoServer(b"other:")
    try:
        with connect(proxy) as before:
            before.sendall(b"x")
            assert receive(before, 1) == b"x"
            proxy.redirect(other.url)
            with connect(proxy) as after:
                after.sendall(b"x")
                assert receive(after, 7) == b"other:x"
            before.sendall(b"y")
            assert receive(before, 1) == b"y"
    finally:
        proxy.cut()
        other.close()


def test_healing_ends_every_order(proxy: TcpProxy) -> None:
    proxy.delay(60.0)
    proxy.limit(1.0)
    proxy.stall()
    proxy.cut_after(1, "to_server")
    proxy.refuse()
    proxy.heal()
    with connect(proxy) as connection:
        connection.sendall(b"well again")
        assert receive(connection, 10) == b"well again"


def test_a_server_that_is_down_resets_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with TcpProxy("127.0.0.1", port) as proxy, contextlib.suppress(ConnectionResetError), connect(proxy) as connection:
        assert connection.recv(1) == b""
