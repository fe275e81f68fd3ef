"""The script that a worker process runs: it takes over the owner's import path, then hands over to `worker_main`.

Run by its path, with ``-P``, so that nothing of ours or of the user's is importable until the owner's own ``sys.path`` is in
place. Its arguments are there to be read in ``ps``; everything else comes through the control socket, which also
may carry secrets.
"""

import json
import socket
import sys


def _boot() -> None:
    arguments = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
    control = socket.socket(fileno=int(arguments["--control"]))
    control.set_inheritable(False)
    received = bytearray()
    while not received.endswith(b"\n"):  # one line of JSON; the owner sends no more before it hears from us
        piece = control.recv(65536)
        if not piece:
            sys.exit(1)  # the owner is gone already
        received += piece
    setup = json.loads(received)
    sys.path[:] = setup["path"]
    sys.argv[1:] = []

    from sage_actor.backends.worker_main import run

    run(control, setup)


if __name__ == "__main__":
    _boot()
