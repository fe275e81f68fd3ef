"""Importing this starts a supervisor on localhost:19001 for the rest of the program, unless one of this account runs there.

It gets a data folder of its own, so that nothing is left behind. Where the port belongs to something else, the program ends
with exit status 77: it cannot run here.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

PORT = 19001
HEALTH = f"http://127.0.0.1:{PORT}/health"
direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def answers() -> bool:
    """Whether a supervisor listens. Raises OSError when something else does."""
    try:
        with direct.open(HEALTH, timeout=5):
            return True
    except urllib.error.HTTPError as error:
        raise OSError(f"port {PORT} belongs to another program") from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, ConnectionRefusedError):
            return False
        raise


def start() -> None:
    """Start a supervisor and arrange for its end."""
    home = tempfile.mkdtemp(prefix="sage-actor-")
    os.environ["SAGE_ACTOR_HOME"] = home  # the token is found there
    process = subprocess.Popen([sys.executable, "-m", "sage_actor", "--port", str(PORT)], stdout=subprocess.DEVNULL)

    def end() -> None:
        process.terminate()
        process.wait(20)
        shutil.rmtree(home, ignore_errors=True)

    atexit.register(end)
    for _ in range(200):
        if process.poll() is not None:
            sys.exit(f"the supervisor ended with status {process.returncode}")
        if answers():
            return
        time.sleep(0.1)
    sys.exit("the supervisor did not come up")


try:
    if not answers():
        start()
except OSError as error:
    print(f"cannot run here: {error}")
    sys.exit(77)
