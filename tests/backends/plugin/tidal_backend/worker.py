"""The program that a worker process runs: connect, import the entry, await it, end. Started by its path, with its setup on stdin."""

import json
import sys


def main() -> None:
    setup = json.loads(sys.stdin.buffer.readline())
    sys.path[:] = setup["path"]

    import asyncio
    import importlib
    import os
    import signal
    import threading
    import traceback

    from tidal_backend.endpoints import Spoke
    from tidal_backend.link import HELLO, READY

    def watch(loop: asyncio.AbstractEventLoop, task: "asyncio.Task[None]", asked: asyncio.Event) -> None:
        """In a thread of its own, so that it works while user code holds the loop: the end of stdin is the end of the owner."""
        while line := sys.stdin.buffer.readline():
            if line == b"end\n":
                asked.set()
                loop.call_soon_threadsafe(task.cancel)
        os.kill(os.getpid(), signal.SIGKILL)

    async def live() -> None:
        loop = asyncio.get_running_loop()
        hub_gone, asked = asyncio.Event(), asyncio.Event()
        endpoint = Spoke(setup["worker"], hub_gone)
        await loop.create_connection(lambda: endpoint.link, "127.0.0.1", setup["port"])
        endpoint.link.send(endpoint.worker, HELLO, [bytes.fromhex(setup["token"])])
        module, _, name = setup["entry"].partition(":")
        entry = getattr(importlib.import_module(module), name)
        task = loop.create_task(entry(endpoint))
        threading.Thread(target=watch, args=(loop, task, asked), daemon=True).start()
        endpoint.link.send(endpoint.worker, READY, [])
        try:
            await task
        except asyncio.CancelledError:
            if not asked.is_set():
                raise
        finally:
            try:
                async with asyncio.timeout(2.0):  # an owner that does not read must not keep us
                    await endpoint.aclose()
            except TimeoutError:
                pass

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the owner's business
    status = 0
    try:
        asyncio.run(live())
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # noqa: BLE001 - the entry is the user's, and this is the end of the process
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # not through the interpreter's end: it would wait for threads of user code


main()
