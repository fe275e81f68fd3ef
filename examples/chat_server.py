"""A chat server on FastAPI websockets: an actor per room, and one per connection.

python examples/chat_server.py              starts a server on a free port and talks to it with real websocket clients
uvicorn examples.chat_server:app            serves: ws://127.0.0.1:8000/rooms/kitchen/alice

A room's actor keeps the members and the last lines, so no lock is needed however many connections talk at once. Each
connection has an actor of its own with a small mailbox that drops the oldest line: a client that reads slowly misses lines,
and holds back nobody. A room watches its members, so a lost connection leaves by itself; an empty room ends itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

import sage_actor as sage

SLOW_READER = sage.MailboxSettings(capacity=16, overflow="drop_old")


class NameInUse(Exception):
    """Somebody of that name is in the room already."""


class Member(sage.Actor):
    """One connection's outgoing side."""

    def __init__(self, socket: WebSocket) -> None:
        self.socket = socket

    async def deliver(self, line: dict[str, str]) -> None:
        await self.socket.send_text(json.dumps(line))


class Room(sage.Actor):
    """Who is here, and what was said last."""

    expected_errors = (NameInUse,)

    def __init__(self, name: str, history: int = 20) -> None:
        self.name = name
        self.members: dict[str, sage.ActorRef[Member]] = {}
        self.lines: deque[dict[str, str]] = deque(maxlen=history)

    def join(self, name: str, member: sage.ActorRef[Member]) -> None:
        if name in self.members:
            raise NameInUse(f"there is a {name!r} in {self.name!r} already")
        for line in self.lines:
            member.tell_nowait(Member.deliver, line)
        self.members[name] = member
        self.context.watch(member)
        self.say("*", f"{name} is here")

    def say(self, name: str, text: str) -> None:
        line = {"from": name, "text": text}
        self.lines.append(line)
        for member in self.members.values():
            member.tell_nowait(Member.deliver, line)  # never waits: the mailbox drops its oldest line

    def people(self) -> list[str]:
        return sorted(self.members)

    async def on_terminated(self, ended: sage.Terminated) -> None:
        for name, member in list(self.members.items()):
            if member == ended.ref:
                del self.members[name]
                self.say("*", f"{name} has left")
        if not self.members:
            self.context.stop()


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with sage.ActorSystem("chat") as system:
        app.state.system = system
        yield


app = FastAPI(lifespan=lifespan)


async def enter(system: sage.ActorSystem, room_name: str, name: str, member: sage.ActorRef[Member]) -> sage.ActorRef[Room]:
    """The room's actor, made if need be, with the member in it. An empty room may end between the look-up and the ask."""
    while True:
        room: sage.ActorRef[Room] | None = system.lookup(f"room {room_name}")
        if room is None:
            with contextlib.suppress(sage.NameTaken):
                room = await system.spawn(Room, room_name, name=f"room {room_name}")
        if room is not None:
            with contextlib.suppress(sage.ActorStopped):
                await room.ask(Room.join, name, member, timeout=2)
                return room
        await asyncio.sleep(0)


@app.websocket("/rooms/{room_name}/{name}")
async def talk(socket: WebSocket, room_name: str, name: str) -> None:
    system: sage.ActorSystem = app.state.system
    await socket.accept()
    member = await system.spawn(Member, socket, mailbox=SLOW_READER, restart=sage.NoRestart())
    try:
        room = await enter(system, room_name, name, member)
        while True:
            await room.tell(Room.say, name, await socket.receive_text())
    except NameInUse as error:
        await socket.close(1008, str(error))
    except WebSocketDisconnect:
        pass
    finally:
        await system.stop(member, drain=False, timeout=0)


# -- the self-test: a real server and real clients --


async def expect(client: object, who: str, text: str) -> None:
    async with asyncio.timeout(10):
        line = json.loads(await client.recv())  # type: ignore[attr-defined]
    assert (line["from"], line["text"]) == (who, text), line


async def conversation(base: str) -> None:
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed

    async with connect(f"{base}/rooms/kitchen/alice") as alice, connect(f"{base}/rooms/garden/gil") as gil:
        await expect(alice, "*", "alice is here")
        await expect(gil, "*", "gil is here")
        await alice.send("anyone hungry?")
        await expect(alice, "alice", "anyone hungry?")
        async with connect(f"{base}/rooms/kitchen/bob") as bob:
            await expect(bob, "*", "alice is here")  # what was said before he came
            await expect(bob, "alice", "anyone hungry?")
            await expect(bob, "*", "bob is here")
            await expect(alice, "*", "bob is here")
            await bob.send("always")
            await expect(alice, "bob", "always")
            async with connect(f"{base}/rooms/kitchen/bob") as second:
                try:
                    await second.recv()
                except ConnectionClosed as closed:
                    assert closed.rcvd is not None
                    assert closed.rcvd.code == 1008, closed
                else:
                    raise AssertionError("two of one name were let in")
        await expect(alice, "*", "bob has left")
        await gil.send("nice weather")
        await expect(gil, "gil", "nice weather")  # the next line after his own arrival: the garden hears nothing of the kitchen

        system: sage.ActorSystem = app.state.system
        kitchen: sage.ActorRef[Room] | None = system.lookup("room kitchen")
        assert kitchen is not None
        assert await kitchen.ask(Room.people) == ["alice"]
        ended = system.watch(kitchen)
        await alice.close()
        async with asyncio.timeout(10):
            assert (await ended).reason is None  # the empty room has ended, in good order
        assert system.lookup("room kitchen") is None
    print("two rooms, three clients: everybody heard what was said in their room, and nothing else")


async def self_test() -> None:
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        assert not serving.done(), "the server did not start"
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        await conversation(f"ws://127.0.0.1:{port}")
    finally:
        server.should_exit = True
        await serving


if __name__ == "__main__":
    try:
        import websockets  # noqa: F401
    except ImportError:
        print("this example's server needs a websocket implementation: pip install websockets")
        raise SystemExit(77) from None
    asyncio.run(self_test())
