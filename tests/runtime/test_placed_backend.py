"""A backend made of several: who is asked for what, who hears what from whom. The rules for backends: tests/backends."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from sage_actor.actor.backend import Buffer, FrameHandler, LostHandler, PoolingEndpoint, WorkerInfo, WorkerResources
from sage_actor.dataflow.placement import PlacedWorkers
from sage_actor.errors import BackendError, BackendUnavailable, FrameError, WorkerLost
from sage_actor.runtime.placed_worker import PlacedWorkerEndpoint, encode_number
from sage_actor.runtime.places import PlacedBackend, PlacedGroup


class Recorded:
    """A backend, its group and its endpoint in one, that writes down what it is asked for and does what a test says."""

    hosts_in_owner = False

    def __init__(self, name: str, failing: str = "") -> None:
        self.name = name
        self.failing = failing
        self.endpoint = self
        self.worker = 0
        self.count = 0
        self.asked: tuple[str, Sequence[WorkerResources]] = ("", ())
        self.sent: list[tuple[int, bytes]] = []
        self.parts: list[bytes] = []
        self.closed: list[float] = []
        self.started: tuple[FrameHandler, LostHandler] | None = None

    async def begin(self, count: int, group: str, resources: Sequence[WorkerResources]) -> Recorded:
        self.count, self.asked = count, (group, resources)
        await asyncio.sleep(0)
        if self.failing == "answer":
            await asyncio.Event().wait()
        if self.failing == "start":
            raise BackendUnavailable(self.name, "it is not there", "start it")
        return self

    @property
    def workers(self) -> Sequence[WorkerInfo]:
        return [WorkerInfo(number, 1000 + number, self.name) for number in range(1, self.count + 1)]

    def start(self, receive: FrameHandler, lost: LostHandler) -> None:
        self.started = (receive, lost)

    def send(self, to: int, parts: Sequence[Buffer]) -> None:
        self.sent.append((to, b"".join(parts)))
        self.parts = [bytes(part) for part in parts[1:]]

    async def flush(self) -> None:
        return None

    async def aclose(self, patience: float = 0.0) -> None:
        self.closed.append(patience)
        if self.failing == "close":
            raise BackendError("a worker did not end well")

    # -- what happens there

    def frame(self, sender: int, content: bytes) -> None:
        assert self.started is not None
        self.started[0](sender, memoryview(content))

    def lose(self, error: BackendError) -> None:
        assert self.started is not None
        self.started[1](error)


class RecordedBackend:
    """The backend of one `Recorded`."""

    hosts_in_owner = False

    def __init__(self, place: Recorded) -> None:
        self.name = place.name
        self.place = place

    async def start(self, count: int, *, group: str, entry: str, resources: Sequence[WorkerResources] = ()) -> Recorded:
        return await self.place.begin(count, group, resources)


GROUPS = [PlacedWorkers(None, 1, 1), PlacedWorkers("near", 2, 2), PlacedWorkers("far", 4, 1)]


async def begin(*places: Recorded, resources: Sequence[WorkerResources] = ()) -> PlacedGroup:
    backends = {None: RecordedBackend(places[0]), "near": RecordedBackend(places[1]), "far": RecordedBackend(places[2])}
    return await PlacedBackend(backends, GROUPS).start(4, group="job", entry="module:main", resources=resources)


@pytest.mark.asyncio
async def test_each_place_is_asked_for_its_own_workers() -> None:
    own, near, far = Recorded("own"), Recorded("near by"), Recorded("far away")
    resources = [WorkerResources(num_cpus=number) for number in range(1, 5)]
    group = await begin(own, near, far, resources=resources)
    assert [place.asked for place in (own, near, far)] == [("job", resources[:1]), ("job-near", resources[1:3]), ("job-far", resources[3:])]
    assert [(info.worker, info.pid, info.host) for info in group.workers] == [
        (1, 1001, "own"),
        (2, 1001, "near by"),
        (3, 1002, "near by"),
        (4, 1001, "far away"),
    ]


@pytest.mark.asyncio
async def test_frames_are_relayed_and_say_whom_they_come_from() -> None:
    own, near, far = Recorded("own"), Recorded("near"), Recorded("far")
    group = await begin(own, near, far)
    came: list[tuple[int, bytes]] = []
    group.endpoint.start(lambda sender, frame: came.append((sender, bytes(frame))), lambda error: None)
    near.frame(2, encode_number(4) + b"to the far one")
    near.frame(2, encode_number(0) + b"to the owner")
    far.frame(1, encode_number(3) + b"back")
    far.frame(1, encode_number(99) + b"to nobody")
    far.frame(1, encode_number(3, [b"head ", b"a large part, ", b"tail"]) + b"head a large part, tail")
    group.endpoint.send(1, [b"from the ", b"owner"])
    group.endpoint.send(99, [b"to nobody"])
    assert came == [(3, b"to the owner")]
    assert far.sent == [(1, encode_number(3) + b"to the far one")]
    assert near.sent == [(2, encode_number(4) + b"back"), (2, encode_number(4) + b"head a large part, tail")]
    assert near.parts == [b"head ", b"a large part, tail"], "the largest part begins a part, so that it can be aligned"
    assert own.sent == [(1, encode_number(0) + b"from the owner")]


@pytest.mark.asyncio
async def test_losses_have_the_jobs_number_and_the_place() -> None:
    places = Recorded("own"), Recorded("near"), Recorded("far")
    group = await begin(*places)
    lost: list[BackendError] = []
    group.endpoint.start(lambda sender, frame: None, lost.append)
    for place in places:
        place.lose(WorkerLost(1, 7, -9, "its words"))
    assert [
        (error.worker, error.pid, error.exit_code, error.last_words, error.place) for error in lost if isinstance(error, WorkerLost)
    ] == [(1, 7, -9, "its words", ""), (2, 7, -9, "its words", "near"), (4, 7, -9, "its words", "far")]


class Pooling(Recorded):
    """One whose endpoint keeps memory for reuse."""

    kept: int | None = None

    def keep_for_reuse(self, nbytes: int) -> None:
        self.kept = nbytes


@pytest.mark.asyncio
async def test_what_is_kept_for_reuse_is_shared_by_the_places_that_can() -> None:
    own, near, far = Pooling("own"), Recorded("near"), Pooling("far")
    group = await begin(own, near, far)
    assert isinstance(group.endpoint, PoolingEndpoint)
    group.endpoint.keep_for_reuse(1000)
    assert (own.kept, far.kept) == (500, 500)
    worker = PlacedWorkerEndpoint(far, 4, 1)
    assert isinstance(worker, PoolingEndpoint)
    worker.keep_for_reuse(1000)
    assert far.kept == 1000
    PlacedWorkerEndpoint(near, 2, 2).keep_for_reuse(1000)  # nothing to keep, no error


@pytest.mark.asyncio
@pytest.mark.parametrize("error", [BackendUnavailable("redis", "the server is gone"), FrameError("a frame is forged")])
async def test_where_links_of_one_place_break_nothing_arrives_any_more(error: BackendError) -> None:
    own, near, far = Recorded("own"), Recorded("near"), Recorded("far")
    group = await begin(own, near, far)
    came: list[bytes] = []
    lost: list[BackendError] = []
    group.endpoint.start(lambda sender, frame: came.append(bytes(frame)), lost.append)
    far.lose(error)
    near.lose(WorkerLost(1, 7, -9))
    near.frame(1, encode_number(0) + b"too late")
    assert came == []
    assert [type(told) for told in lost] == [type(error)]
    assert "place 'far'" in str(lost[0])


@pytest.mark.asyncio
async def test_one_place_that_does_not_start_ends_the_others() -> None:
    own, near, far = Recorded("own"), Recorded("near", failing="start"), Recorded("far")
    with pytest.raises(BackendUnavailable, match="place 'near': it is not there; start it"):
        await begin(own, near, far)
    assert own.closed == far.closed == [0.0]
    assert near.closed == []


@pytest.mark.asyncio
async def test_a_start_that_is_cancelled_while_one_place_does_not_answer_ends_the_others() -> None:
    own, near, far = Recorded("own"), Recorded("near", failing="answer"), Recorded("far")
    starting = asyncio.ensure_future(begin(own, near, far))
    for _ in range(10):
        await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert own.closed == far.closed == [0.0]
    assert near.closed == []


@pytest.mark.asyncio
async def test_one_place_that_does_not_end_well_is_named_and_the_others_end() -> None:
    own, near, far = Recorded("own"), Recorded("near", failing="close"), Recorded("far")
    group = await begin(own, near, far)
    for _ in range(2):
        with pytest.raises(BackendError, match="place 'near': a worker did not end well"):
            await group.aclose(3.0)
    assert own.closed == near.closed == far.closed == [3.0]
