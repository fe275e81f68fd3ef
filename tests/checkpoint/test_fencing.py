"""Several owners of one job over one disk, in every order of their steps, with crashes anywhere: rule F42."""

from __future__ import annotations

import asyncio
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_actor.checkpoint.disk import blocks_of
from sage_actor.checkpoint.log import CheckpointLog
from sage_actor.checkpoint.manifest import AttemptEntry, CheckpointEntry, Manifest, OperatorManifest
from sage_actor.checkpoint.open_disk import Place
from sage_actor.checkpoint.part_names import job_folder
from sage_actor.checkpoint.storage import CheckpointStorage, part_prefix
from sage_actor.errors import CheckpointError, Fenced
from sage_actor.state.parts import OperatorPart, TableInfo
from sage_actor.testing import ManualClock
from sage_actor.testing.simulated_disk import DiskFaults, SimulatedDisk


class Owner:
    """One process that believes it owns the job: takes over, completes checkpoints, tidies up, until it is refused or ends."""

    def __init__(self, world: World, checkpoints: int, chance: Random) -> None:
        self.world = world
        self.checkpoints = checkpoints
        self.chance = chance

    async def run(self) -> None:
        world = self.world
        storage = CheckpointStorage(Place(world.disk, "/c"), job_folder("job"), "job")
        start = await storage.begin_attempt(resume=True)
        files = [] if start.manifest is None else list(start.manifest.files().values())
        for ref in files:
            await storage.verify(ref)
        world.taken_over(start.attempt, 0 if start.manifest is None else start.manifest.checkpoint)
        for number in range(start.next_checkpoint, start.next_checkpoint + self.checkpoints):
            for _ in range(self.chance.randrange(12)):  # stopped for a while, as by SIGSTOP
                await asyncio.sleep(0)
            name = part_prefix(start.parts, number, "sum", 0) + "x"
            files = [*files[-2:], await storage.write(name, blocks_of(b"%d" % number * 50))]
            part = OperatorPart("sum", 0, 1, 8, 0, 7, "memory", {"t": TableInfo("keyed")}, files)
            manifest = Manifest("job", number, start.attempt, 0, operators={"sum": OperatorManifest("sum", "fold", 1, 8, [part])})
            await storage.complete(manifest)
            world.completed(start.attempt, number)
            await storage.collect(2)


class World:
    """The disk, and what its owners were told: from which checkpoint each began, and which ones were confirmed to whom."""

    def __init__(self, seed: int, faults: DiskFaults | None = None) -> None:
        self.disk = SimulatedDisk(Random(seed), ManualClock(), faults)
        self.began: dict[int, int] = {}
        self.confirmed: dict[int, int] = {}
        self.refused = 0

    def taken_over(self, attempt: int, checkpoint: int) -> None:
        """An owner was told where to begin: no earlier than at what was confirmed to any attempt before it."""
        assert attempt not in self.began
        assert checkpoint >= max((number for number, by in self.confirmed.items() if by < attempt), default=0)
        self.began[attempt] = checkpoint

    def completed(self, attempt: int, checkpoint: int) -> None:
        """A checkpoint was confirmed: no other of that id, and none that a later attempt has not seen when it began."""
        assert checkpoint not in self.confirmed
        assert all(seen >= checkpoint for later, seen in self.began.items() if later > attempt)
        self.confirmed[checkpoint] = attempt

    async def check(self) -> None:
        """One manifest a slot, each by the attempt that ruled; the newest confirmed one, or a newer, is found and whole."""
        self.disk.faults = DiskFaults()
        log = CheckpointLog(self.disk, "/c/job/log", "job")
        content = await log.read()
        ruler = None
        for _, entry in sorted(content.entries.items()):
            if isinstance(entry, AttemptEntry):
                assert ruler is None or entry.attempt > ruler.attempt
                ruler = entry
            elif isinstance(entry, CheckpointEntry):
                assert ruler is not None
                assert entry.token == ruler.token, "a manifest of a replaced attempt was accepted"
        storage = CheckpointStorage(Place(self.disk, "/c"), job_folder("job"), "job")
        start = await storage.begin_attempt(resume=True)
        found = 0 if start.manifest is None else start.manifest.checkpoint
        assert found >= max(self.confirmed, default=0)


async def contest(world: World, chance: Random, owners: int, kills: int) -> None:
    async def owner() -> None:
        for _ in range(chance.randrange(30)):
            await asyncio.sleep(0)
        try:
            await Owner(world, chance.randrange(1, 5), chance).run()
        except Fenced:
            world.refused += 1
        except CheckpointError:
            pass  # the disk refused, or what it holds is damaged: the owner gives up

    tasks = [asyncio.ensure_future(owner()) for _ in range(owners)]
    for _ in range(kills):
        for _ in range(chance.randrange(200)):
            await asyncio.sleep(0)
        chance.choice(tasks).cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
            raise result


@pytest.mark.rule("F42")
@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), owners=st.integers(1, 3), kills=st.integers(0, 2))
def test_of_several_owners_only_the_last_is_believed(seed: int, owners: int, kills: int) -> None:
    async def main() -> None:
        world, chance = World(seed), Random(seed)
        await contest(world, chance, owners, kills)
        await world.check()

    asyncio.run(main())


@pytest.mark.rule("F42")
@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32), owners=st.integers(1, 3))
def test_also_on_a_disk_that_fails_fills_up_and_tears(seed: int, owners: int) -> None:
    async def main() -> None:
        world, chance = World(seed, DiskFaults(full=0.01, failing=0.005, torn=0.03)), Random(seed)
        await contest(world, chance, owners, 1)
        await world.check()

    asyncio.run(main())


@pytest.mark.rule("F42")
@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32), at=st.integers(1, 250))
def test_also_when_the_machine_crashes(seed: int, at: int) -> None:
    async def main() -> None:
        world, chance = World(seed), Random(seed)
        steps = 0

        def crash(step: str, path: str) -> None:
            nonlocal steps
            steps += 1
            if steps == at:
                world.disk.crash()

        world.disk.before_step = crash
        await contest(world, chance, 2, 0)
        world.disk.before_step = None
        await world.check()

    asyncio.run(main())


@pytest.mark.rule("F42")
def test_zombies_are_refused_often_enough_to_mean_something() -> None:
    async def main(seed: int) -> int:
        world = World(seed)
        await contest(world, Random(seed), 3, 0)
        await world.check()
        return world.refused

    assert sum(asyncio.run(main(seed)) for seed in range(40)) > 20


@pytest.mark.rule("F42")
def test_an_owner_killed_before_any_step_leaves_a_whole_log() -> None:
    async def main(at: int) -> bool:
        world = World(1)
        await Owner(world, 2, Random(1)).run()
        reached = False
        steps = 0

        def kill(step: str, path: str) -> None:
            nonlocal steps, reached
            steps += 1
            if steps == at:
                reached = True
            if steps >= at:
                raise asyncio.CancelledError

        world.disk.before_step = kill
        try:
            await Owner(world, 3, Random(2)).run()
        except asyncio.CancelledError:
            pass
        world.disk.before_step = None
        await world.check()
        return reached

    at = 1
    while asyncio.run(main(at)):
        at += 1
    assert at > 60
