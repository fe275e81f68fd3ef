"""State that is larger than the memory it may use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rocksdict")

PROGRAM = """
import asyncio, os, sys
from sage_actor.state.rocksdb_store import open_store
from sage_actor.state.store import StorePlace

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

async def main(folder, entries):
    sizes = {"cache": 8 << 20, "blocks": 8 << 20, "writes": 4 << 20}
    store = await open_store(StorePlace("job", "sums", 0, 1, 128, 0, 127, folder, sizes))
    table, before, most = store.table("sums"), resident(), 0
    for key in range(entries):
        table.put(key, os.urandom(1000))
        if key % 1000 == 0:
            most = max(most, resident() - before)
    for key in range(0, entries, 7):
        assert len(table.get(key)) == 1000
        if key % 1000 == 0:
            most = max(most, resident() - before)
    assert len(table) == entries
    most = max(most, resident() - before)
    await store.close()
    print(most)

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
def test_resident_memory_stays_far_below_the_state(tmp_path: Path) -> None:
    entries = 200_000
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "state"), str(entries)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    most = int(done.stdout)
    assert most < entries * 1000 / 3, f"{most / 2**20:.0f} MiB for {entries / 1000:.0f} MB of state"
