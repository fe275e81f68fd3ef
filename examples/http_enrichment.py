"""Asynchronous enrichment over HTTP: up to 20 requests in flight, results in input order, failures retried.

The program starts its own server on a free port. Every fifth customer's first request is answered with 503: those calls are
tried again after a growing pause, and neither order nor completeness suffers. One customer is unknown (404) and goes to the
dead letters.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

import sage_actor as sage

CITIES = ["Oslo", "Rome", "Lima", "Bonn"]
UNKNOWN = 13
asked: Counter[int] = Counter()
lock = threading.Lock()


class Customers(BaseHTTPRequestHandler):
    """GET /customers/7 -> {"city": ...}"""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        customer = int(self.path.rpartition("/")[2])
        with lock:
            asked[customer] += 1
            busy = customer % 5 == 0 and asked[customer] == 1
        status = 503 if busy else 404 if customer == UNKNOWN else 200
        body = json.dumps({"city": CITIES[customer % len(CITIES)]}).encode() if status == 200 else b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class AddCity(sage.MapFunction[dict, dict]):
    """One client per parallel instance: made in open, closed in close, both awaited."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url

    async def open(self, context: sage.FunctionContext) -> None:
        self.client = httpx.AsyncClient(base_url=self.base_url, trust_env=False)

    async def map(self, order: dict) -> dict:
        answer = await self.client.get(f"/customers/{order['customer']}")
        answer.raise_for_status()
        return order | answer.json()

    async def close(self) -> None:
        await self.client.aclose()


server = ThreadingHTTPServer(("127.0.0.1", 0), Customers)
threading.Thread(target=server.serve_forever, daemon=True).start()
orders = [{"order": n, "customer": n % 40} for n in range(200)]

env = sage.LocalEnvironment("enrichment")
enriched = env.from_collection(orders).map_async(
    AddCity,
    base_url=f"http://127.0.0.1:{server.server_port}",
    concurrency=20,
    ordered=True,
    timeout="5s",
    on_error=sage.Retry(attempts=3, delay="5ms", max_delay="50ms", then="dead_letter"),
)
results, refused = enriched.collect(), enriched.dead_letters().collect()
job = env.submit()
env.wait_for_completion(job)
server.shutdown()
server.server_close()

known = [order for order in orders if order["customer"] != UNKNOWN]
assert list(results) == [order | {"city": CITIES[order["customer"] % 4]} for order in known], "complete, and in input order"
assert {letter.value["customer"] for letter in refused} == {UNKNOWN}
assert all(isinstance(letter.error, httpx.HTTPStatusError) for letter in refused)
metrics = job.metrics()
print(f"{len(results)} orders enriched in order, {metrics['retried']} calls tried again, {len(refused)} orders set aside")
assert metrics["retried"] >= 8
