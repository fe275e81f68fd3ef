"""The load generator of the latency benchmark, a process of its own: ``python -m benchmarks.paced_load FD RATE COUNT``.

It spins until each record is due (timers are too coarse) and writes the intended send time, eight bytes, into a pipe.
A full pipe delays the sending, never the intended times: the load is open loop.
"""

from __future__ import annotations

import asyncio
import os
import struct
import subprocess
import sys
import time
from array import array

__all__ = ["PacedLoad"]


def generate(fd: int, rate: int, count: int) -> None:
    """Begin 50 ms from now, then one record every 1/rate seconds."""
    clock, write, pack = time.perf_counter_ns, os.write, struct.Struct("<q").pack
    step = 1_000_000_000 // rate
    due = clock() + 50_000_000
    for _ in range(count):
        while clock() < due:
            pass
        write(fd, pack(due))
        due += step
    os.close(fd)


class PacedLoad:
    """The receiving end: starts the generator and gives the intended send times of what has arrived.

    ``time.perf_counter_ns`` is one clock for all processes of a machine, so ages can be taken on this side.
    """

    def __init__(self, rate: int, count: int) -> None:
        self.rate = rate
        self.count = count
        self.fd = -1
        self.process: subprocess.Popen[bytes] | None = None
        self.waiter: asyncio.Future[None] | None = None

    async def open(self) -> None:
        """Start the generator."""
        self.fd, sending = os.pipe()
        os.set_blocking(self.fd, False)
        command = [sys.executable, "-m", "benchmarks.paced_load", str(sending), str(self.rate), str(self.count)]
        self.process = subprocess.Popen(command, pass_fds=(sending,))  # noqa: ASYNC220 - before the clock starts
        os.close(sending)
        asyncio.get_running_loop().add_reader(self.fd, self._ready)

    def _ready(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    async def read(self, limit: int) -> list[int] | None:
        """Wait for records; None when the generator has ended. Cancelling loses none."""
        while True:
            try:
                data = os.read(self.fd, 8 * limit)
            except BlockingIOError:
                self.waiter = asyncio.get_running_loop().create_future()
                await self.waiter
                continue
            return array("q", data).tolist() if data else None

    async def close(self) -> None:
        """Give everything back."""
        asyncio.get_running_loop().remove_reader(self.fd)
        os.close(self.fd)
        if self.process is not None:
            self.process.wait()


if __name__ == "__main__":
    generate(*(int(argument) for argument in sys.argv[1:4]))
