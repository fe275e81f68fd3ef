"""What is wrong with a server or an address is said at the start, with the place and the next step, and never with a password."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import socket
import subprocess
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import redis.asyncio  # noqa: F401  now, and not on the loop of the first test

from sage_actor.backends.redis_address import RedisAddress
from sage_actor.backends.redis_endpoint import RedisEndpoint
from sage_actor.backends.redis_keys import RedisKeys
from sage_actor.backends.redis_outage import Outage
from sage_actor.backends.redis_refusals import RIGHTS, may_pass, refusal
from sage_actor.errors import BackendError, BackendUnavailable
from sage_actor.testing import ManualClock, RedisServer

PASSWORD = "so-secret"


@contextmanager
def running(*arguments: str) -> Iterator[RedisServer]:
    try:
        with RedisServer(arguments=arguments) as started:
            yield started
    except BackendUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with running() as started:
        yield started


@pytest.fixture(scope="module")
def guarded() -> Iterator[RedisServer]:
    """One with a password, of which nothing else is changed."""
    with running("--requirepass", PASSWORD) as started:
        yield started


@asynccontextmanager
async def client(address: str) -> AsyncGenerator[Any, None]:
    from redis.asyncio import Redis

    found = cast("Any", Redis).from_url(address)
    try:
        yield found
    finally:
        await found.aclose()


@asynccontextmanager
async def opened(address: str) -> AsyncGenerator[RedisEndpoint, None]:
    """The endpoint of a group without workers."""
    endpoint = RedisEndpoint(0, RedisKeys(address, f"sage:refused:{secrets.token_hex(4)}", 0, bytes(32)), silent=lambda worker: None)
    try:
        await endpoint.open()
        yield endpoint
    finally:
        await endpoint.abort()


async def refused(address: str) -> str:
    """What is said."""
    with pytest.raises(BackendUnavailable) as caught:
        async with asyncio.timeout(20), opened(address):
            pass
    assert PASSWORD not in str(caught.value)
    assert f"127.0.0.1:{RedisAddress.of(address).port}" in str(caught.value)
    return str(caught.value)


def with_user(address: str, user: str) -> str:
    return address.replace("redis://", f"redis://{user}@")


@pytest.mark.asyncio
async def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert f"start a server with `redis-server --port {port}`" in await refused(f"redis://127.0.0.1:{port}/0")


@pytest.mark.asyncio
async def test_a_server_that_wants_a_password(guarded: RedisServer) -> None:
    assert "write user and password in the address" in await refused(guarded.address)
    assert "write user and password in the address" in await refused(with_user(guarded.address, ":wrong"))
    assert "write user and password in the address" in await refused(with_user(guarded.address, f"nobody:{PASSWORD}"))
    async with opened(with_user(guarded.address, f":{PASSWORD}")):
        pass


@pytest.mark.asyncio
async def test_a_user_needs_the_rights_that_are_named_and_no_more(guarded: RedisServer) -> None:
    owner = with_user(guarded.address, f":{PASSWORD}")
    async with client(owner) as other:
        await other.execute_command("ACL", "SETUSER", "reader", "on", f">{PASSWORD}", "~sage:*", "+@read", "+info")
        await other.execute_command("ACL", "SETUSER", "elsewhere", "on", f">{PASSWORD}", "~other:*", "+@all")
        await other.execute_command("ACL", "SETUSER", "worker", "on", f">{PASSWORD}", *RIGHTS.split())
        await other.execute_command("ACL", "SETUSER", "uninformed", "on", f">{PASSWORD}", *RIGHTS.split(), "-info")
    said = await refused(with_user(guarded.address, f"reader:{PASSWORD}"))
    assert "MULTI" in said or "XADD" in said
    assert f"ACL SETUSER name on >password {RIGHTS}" in said
    assert RIGHTS in await refused(with_user(guarded.address, f"elsewhere:{PASSWORD}"))
    for name in ("worker", "uninformed"):
        async with opened(with_user(guarded.address, f"{name}:{PASSWORD}")):
            pass
    async with client(owner) as other:
        assert not await other.keys("sage:refused:*:proof")


@pytest.mark.asyncio
async def test_a_database_that_there_is_not(server: RedisServer) -> None:
    assert "beyond its `databases`" in await refused(server.address.replace("/0", "/99"))
    async with opened(server.address.replace("/0", "/3")):
        pass


def test_a_replica(server: RedisServer) -> None:
    with running("--replicaof", "127.0.0.1", str(RedisAddress.of(server.address).port)) as replica:
        assert "it is a replica; write the address of its master" in asyncio.run(refused(replica.address))


def test_a_server_without_memory() -> None:
    with running("--maxmemory", "1") as full:
        assert "raise its `maxmemory`" in asyncio.run(refused(full.address))


def test_a_server_that_evicts_is_used_and_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    async def main(address: str) -> None:
        async with opened(address):
            pass

    with running("--maxmemory", "1gb", "--maxmemory-policy", "allkeys-lru") as evicting:
        asyncio.run(main(evicting.address))
    assert "allkeys-lru" in caplog.text
    assert "CONFIG SET maxmemory-policy noeviction" in caplog.text


async def serve_as(version: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers as a server of that version: all it takes to get as far as being asked for it."""
    content = f"# Server\r\nredis_version:{version}\r\nredis_mode:standalone\r\n"
    try:
        while line := await reader.readline():
            words: list[bytes] = []
            for _ in range(int(line[1:])):
                size = int((await reader.readline())[1:])
                words.append((await reader.readexactly(size + 2))[:-2])
            if words[0] == b"INFO":
                writer.write(f"${len(content)}\r\n{content}\r\n".encode())
            else:
                writer.write(b"-ERR unknown subcommand\r\n" if words[0] == b"CLIENT" else b"-ERR syntax error\r\n")
    finally:
        writer.close()


@pytest.mark.asyncio
@pytest.mark.parametrize(("version", "said"), [("6.0.16", "the server is Redis 6.0.16; 6.2 or later is needed"), ("9.1.0", "syntax error")])
async def test_a_server_that_is_too_old(version: str, said: str) -> None:
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.ensure_future(serve_as(version, reader, writer)))

    old = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with old:
        assert said in await refused(f"redis://127.0.0.1:{old.sockets[0].getsockname()[1]}/0")
        await asyncio.gather(*tasks)


@pytest.mark.asyncio
async def test_something_else_on_that_port() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as other:
        await refused(f"redis://127.0.0.1:{other.sockets[0].getsockname()[1]}/0")


@pytest.mark.asyncio
async def test_options_that_nobody_knows(server: RedisServer) -> None:
    assert "nonsense" in await refused(f"{server.address}?nonsense=1")
    with pytest.raises(BackendUnavailable, match=r"'soon' is not a duration.*\?patience=20"):
        RedisAddress.of(f"{server.address}?patience=soon")
    async with opened(f"{server.address}?patience=90s&health_check_interval=7"):
        pass


def test_an_address_is_taken_apart() -> None:
    address = RedisAddress.of("rediss://me:pass@host:6380/2?patience=1m&ssl_ca_certs=/a%20b/ca.pem")
    assert address.url == "rediss://me:pass@host:6380/2?ssl_ca_certs=%2Fa+b%2Fca.pem"
    assert (address.shown, address.port, address.patience, address.answer) == ("rediss://***@host:6380/2", 6380, 60.0, 30.0)
    with pytest.raises(BackendUnavailable, match=r"redis://\?.*Invalid IPv6 URL"):
        RedisAddress.of("redis://me:pass@[::1/0")
    assert (RedisAddress.of("redis://host").patience, RedisAddress.of("redis://host").port) == (10.0, 6379)


# -- TLS --------------------------------------------------------------------------------------------------------------


class Certificates:
    """An authority, what it has signed for the server and for clients, and a stranger."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for authority in ("ca", "stranger"):
            self.openssl(
                "req", "-x509", *self.new_key(authority), "-out", f"{authority}.pem", "-days", "2", "-subj", f"/CN=sage {authority}"
            )
        for name, place in (("server", "IP:127.0.0.1"), ("client", "DNS:client"), ("misplaced", "DNS:elsewhere.example")):
            self.openssl("req", *self.new_key(name), "-out", f"{name}.csr", "-subj", f"/CN={name}")
            (folder / f"{name}.ext").write_text(f"subjectAltName={place}\n")
            signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", f"{name}.ext")
            self.openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *signing)

    @staticmethod
    def new_key(name: str) -> tuple[str, ...]:
        return ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{name}.key")

    def openssl(self, *arguments: str) -> None:
        subprocess.run([self.program(), *arguments], cwd=self.folder, check=True, capture_output=True)

    @staticmethod
    def program() -> str:
        found = shutil.which("openssl")
        if found is None:
            pytest.skip("no openssl on PATH, which makes the certificates")
        return found

    def path(self, name: str) -> str:
        return str(self.folder / name)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


Secured = Callable[..., str]


@pytest.fixture
def secured(certificates: Certificates) -> Iterator[Secured]:
    """Starts a server that speaks TLS, and answers its ``rediss://`` address without options."""
    with ExitStack() as stack:

        def start(name: str = "server", *, clients: str = "no") -> str:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                port = listener.getsockname()[1]
            files = ("--tls-cert-file", certificates.path(f"{name}.pem"), "--tls-key-file", certificates.path(f"{name}.key"))
            trust = ("--tls-ca-cert-file", certificates.path("ca.pem"), "--tls-auth-clients", clients)
            try:
                stack.enter_context(RedisServer(arguments=("--tls-port", str(port), *files, *trust)))
            except BackendUnavailable as error:
                pytest.skip(f"the redis-server here speaks no TLS: {error}")
            return f"rediss://127.0.0.1:{port}/0"

        yield start


@pytest.mark.asyncio
async def test_tls_with_the_right_authority(secured: Secured, certificates: Certificates) -> None:
    from sage_actor.backends.redis import create

    address = f"{secured()}?ssl_ca_certs={certificates.path('ca.pem')}"
    group = await create(address).start(1, group="secured", entry="sage_actor.testing.conformance_worker:echo")
    came: asyncio.Queue[bytes] = asyncio.Queue()
    lost: list[BackendError] = []
    group.endpoint.start(lambda sender, frame: came.put_nowait(bytes(frame)), lost.append)
    group.endpoint.send(1, [b"through ", b"TLS"])
    async with asyncio.timeout(20):
        assert await came.get() == b"through TLS"
    await group.aclose()
    assert not lost


@pytest.mark.asyncio
async def test_tls_with_another_authority_or_another_host(secured: Secured, certificates: Certificates) -> None:
    address = secured()
    for options in ("", f"?ssl_ca_certs={certificates.path('stranger.pem')}"):
        assert "?ssl_ca_certs=FILE" in await refused(address + options)
    assert "the host as the certificate does" in await refused(f"{secured('misplaced')}?ssl_ca_certs={certificates.path('ca.pem')}")


@pytest.mark.asyncio
async def test_tls_with_certificates_on_both_sides(secured: Secured, certificates: Certificates) -> None:
    address = f"{secured(clients='yes')}?ssl_ca_certs={certificates.path('ca.pem')}"
    assert "?ssl_certfile=FILE&ssl_keyfile=FILE" in await refused(address)
    own = f"&ssl_certfile={certificates.path('client.pem')}&ssl_keyfile={certificates.path('client.key')}"
    async with opened(address + own):
        pass


@pytest.mark.asyncio
async def test_tls_where_there_is_none_and_none_where_there_is(secured: Secured, certificates: Certificates, server: RedisServer) -> None:
    address = secured()
    assert "rediss://" in await refused(address.replace("rediss://", "redis://"))
    plain = server.address.replace("redis://", "rediss://")
    assert "write redis:// in place of rediss://" in await refused(f"{plain}?ssl_ca_certs={certificates.path('ca.pem')}")
    assert "is every file there that the address names" in await refused(f"{address}?ssl_ca_certs=no-such-file")


# -- what is waited for -----------------------------------------------------------------------------------------------


def test_what_may_pass_and_what_will_not() -> None:
    from redis import exceptions as redis

    address = RedisAddress.of("redis://host")
    passing = [
        redis.ConnectionError("Connection refused"), redis.TimeoutError("x"), ConnectionResetError(), TimeoutError(),
        redis.BusyLoadingError("loading"), redis.ReadOnlyError("x"), redis.OutOfMemoryError("x"), redis.MasterDownError("x"),
        redis.ConnectionError("max number of clients reached"), redis.ResponseError("MISCONF cannot save"),
        redis.ResponseError("UNBLOCKED force unblock"), redis.InvalidResponse("garbage"),
    ]  # fmt: skip
    lasting = [
        redis.AuthenticationError("WRONGPASS"), redis.NoPermissionError("x"), redis.ResponseError("DB index is out of range"),
        redis.ResponseError("unknown command"), redis.ResponseError("WRONGTYPE x"), ValueError("x"), TypeError("x"),
    ]  # fmt: skip
    assert [error for error in passing if not may_pass(refusal(address, error))] == []
    assert [error for error in lasting if may_pass(refusal(address, error))] == []


def test_pauses_grow_end_with_the_patience_and_begin_anew_after_a_success() -> None:
    clock = ManualClock()
    outage = Outage(10.0, clock)
    down = refusal(RedisAddress.of("redis://host"), ConnectionRefusedError("refused"))
    pauses = [outage.pause(down) for _ in range(8)]
    assert pauses == [0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0, 1.0]
    assert outage.lasts
    outage.over()
    assert not outage.lasts
    assert outage.pause(down) == 0.02
    asyncio.run(clock.advance(9.99))
    assert outage.pause(down) == pytest.approx(0.01)  # never past the end
    asyncio.run(clock.advance(0.01))
    with pytest.raises(BackendUnavailable, match=r"redis://host.*away for 10\.0 s: refused; start a server"):
        outage.pause(down)
    wrong = refusal(RedisAddress.of("redis://host"), ValueError("no"))
    with pytest.raises(BackendUnavailable) as caught:
        Outage(10.0, clock).pause(wrong)
    assert caught.value is wrong
