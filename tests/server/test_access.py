"""Who may come in over HTTP, against a real server."""

from __future__ import annotations

import http.client
import json
import re
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest

from sage_actor.server.access import allowed_host

if TYPE_CHECKING:
    from conftest import Running


def ask(
    running: Running,
    path: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    token: bool = True,
) -> tuple[int, Any, http.client.HTTPResponse]:
    host, _, port = running.address.partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    given = {"Authorization": f"Bearer {running.token}"} if token else {}
    try:
        connection.request(method, path, body, {**given, **(headers or {})})
        answer = connection.getresponse()
        text = answer.read().decode()
    finally:
        connection.close()
    is_json = (answer.getheader("content-type") or "").startswith("application/json")
    return answer.status, json.loads(text) if is_json else text, answer


PROTECTED = [
    ("GET", "/api/v1/jobs"),
    ("POST", "/api/v1/jobs"),
    ("GET", "/api/v1/jobs/x"),
    ("GET", "/api/v1/jobs/x/logs"),
    ("POST", "/api/v1/jobs/x/stop"),
    ("POST", "/api/v1/jobs/x/cancel"),
    ("GET", "/api/v1/info"),
    ("GET", "/api/v1/openapi.json"),
    ("GET", "/metrics"),
    ("GET", "/docs"),
    ("GET", "/nothing/there"),
    ("GET", "//"),
]


@pytest.mark.parametrize(("method", "path"), PROTECTED)
@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "Basic x", "Bearer ", "Bearer é"])
def test_nothing_is_told_without_the_token(running: Running, method: str, path: str, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    status, said, answer = ask(running, path, method=method, headers=headers, token=False)
    assert status == 401
    assert set(said) == {"error", "next"}
    assert "token" in said["error"]
    assert answer.getheader("www-authenticate") == "Bearer"


def test_only_health_and_the_empty_page_are_open(running: Running) -> None:
    assert ask(running, "/health", token=False)[:2] == (200, {"status": "ok"})
    status, page, answer = ask(running, "/", token=False)
    assert status == 200
    assert running.token not in page
    assert "<script>" in page
    policy = answer.getheader("content-security-policy") or ""
    assert re.search(r"default-src 'none'; script-src 'sha256-[\w+/=]+'", policy)
    assert "unsafe-inline" not in policy.partition("style-src")[0]


def test_the_token_opens_it_in_the_header_only(running: Running) -> None:
    assert ask(running, "/api/v1/jobs")[0] == 200
    assert ask(running, "/api/v1/jobs", token=False, headers={"Authorization": f"bearer {running.token}"})[0] == 200
    assert ask(running, f"/api/v1/jobs?token={running.token}", token=False)[0] == 401


@pytest.mark.parametrize("host", ["evil.example", "evil.example:19001", "localhost.evil.example", "", "127.0.0.1.evil.example"])
def test_a_rebound_name_is_refused_even_with_the_token(running: Running, host: str) -> None:
    status, said, _ = ask(running, "/api/v1/jobs", headers={"Host": host})
    assert status == 403
    assert "is not this supervisor" in said["error"]
    assert ask(running, "/health", headers={"Host": host})[0] == 403, "not even health"


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://localhost", "http://127.0.0.1:1"])
def test_pages_of_others_are_refused(running: Running, origin: str) -> None:
    status, said, _ = ask(running, "/api/v1/jobs", headers={"Origin": origin})
    assert status == 403
    assert "refused" in said["error"]


def test_our_own_page_may_ask(running: Running) -> None:
    assert ask(running, "/api/v1/jobs", headers={"Origin": f"http://{running.address}"})[0] == 200


def test_names_that_are_ours() -> None:
    assert all(
        allowed_host(host, "127.0.0.1")
        for host in ("localhost:1", "LOCALHOST", "127.0.0.1:19001", "[::1]:5", "10.0.0.9", socket.gethostname())
    )
    assert allowed_host("sage.lan:19001", "sage.lan")
    assert not any(allowed_host(host, "127.0.0.1") for host in ("", "example.org", "localhost.example.org", "127.0.0.1.example.org"))


def test_a_body_has_a_bound(running: Running) -> None:
    status, said, _ = ask(running, "/api/v1/jobs", method="POST", headers={"Content-Length": str(1 << 40)}, body=b"")
    assert status == 413
    assert "larger than" in said["error"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "body"),
        (b"{", "JSON"),
        (b"[]", "body"),
        (b"{}", "body.name: Field required"),
        (b'{"name": "", "kind": "script", "payload": ""}', "body.name"),
        (
            b'{"name": "a/b", "kind": "script", "payload": ""}',
            "body.name: Value error, a job's name must be printable and hold no '/', not 'a/b'",
        ),
        (b'{"name": "a", "kind": "magic", "payload": ""}', "body.kind: Input should be 'graph' or 'script'"),
        (b'{"name": "a", "kind": "script", "payload": "%%%"}', "body.payload"),
        (b'{"name": "a", "kind": "script", "payload": "", "parallelism": 0}', "body.parallelism"),
        (b'{"name": "a", "kind": "script", "payload": "", "extra": 1}', "body.extra"),
        (b'{"name": "a", "kind": "script", "payload": "", "restart": {"delai": 1}}', "did you mean 'restart.delay'"),
    ],
)
def test_a_wrong_submission_is_refused_in_words(running: Running, body: bytes, said: str) -> None:
    status, told, _ = ask(running, "/api/v1/jobs", method="POST", body=body, headers={"Content-Type": "application/json"})
    assert status == 422
    assert said in told["error"]
    assert told["next"]
    assert ask(running, "/api/v1/jobs")[1] == [], "and nothing was kept"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v1/jobs/nobody", 404),
        ("GET", "/api/v1/jobs/nobody?wait=0.1", 404),
        ("GET", "/api/v1/jobs/nobody/logs", 404),
        ("POST", "/api/v1/jobs/nobody/stop", 404),
        ("POST", "/api/v1/jobs/nobody/cancel", 404),
        ("GET", "/api/v1/jobs/nobody?wait=1e9", 422),
        ("GET", "/api/v1/jobs/nobody/logs?tail=-1", 422),
        ("GET", "/api/v1/jobs?limit=0", 422),
        ("GET", "/api/v2", 404),
        ("DELETE", "/api/v1/jobs", 405),
    ],
)
def test_wrong_requests_get_words_and_a_way_on(running: Running, method: str, path: str, status: int) -> None:
    got, said, _ = ask(running, path, method=method)
    assert got == status
    assert said["error"]
    assert said["next"]
