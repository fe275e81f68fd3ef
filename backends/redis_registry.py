"""Who is there: agents in Redis, the room that each has left, and how it is leased.

    sage:agents                  set of the agents' ids
    sage:agents:generation       another at each lease; makes taking some atomic
    sage:agents:<id>             what it offers (signed); ends 15 s after it was last said, everything else after 60 s
    sage:agents:<id>:0:beat      its heartbeat, from a thread of its own: a terminal that does not scroll may hold the rest of it up
    sage:agents:<id>:work        group/worker -> assignment (signed), each of them a lease of one slot
    sage:agents:<id>:state       group/worker -> what became of it (signed)

An owner leases by writing the assignments, an agent that sees no life of the owner any more deletes them. Both write what they
know again and again, so that nothing depends on one message, nor on the memory of the server.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

from sage_actor.actor.backend import WorkerResources
from sage_actor.actor.worker_agents import AgentInfo
from sage_actor.backends.redis_keys import EXPIRY, RedisKeys
from sage_actor.backends.redis_line import Command, RedisLine
from sage_actor.backends.redis_placement import Room, place
from sage_actor.backends.redis_rounds import may_live
from sage_actor.backends.redis_trust import Note, Trust, open_note

__all__ = [
    "INDEX",
    "PRESENCE",
    "Agent",
    "Overtaken",
    "beat",
    "beating",
    "lease",
    "lease_name",
    "offer_place",
    "printable",
    "read_agents",
    "record",
    "resources_of",
    "state",
    "state_place",
    "told_resources",
    "work",
    "work_place",
]

INDEX: Final = "sage:agents"
_GENERATION: Final = "sage:agents:generation"

PRESENCE: Final = 15
"""Seconds that an agent's record outlives its last round."""

_ABSURD: Final = 1e18  # nobody has so much of anything; what strangers write must not overflow

# Nothing is written unless nobody else has leased since we looked, and every agent is still there. The generation is a random
# text: a number that expired would count to the same again.
_LEASE: Final = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
for i = 2, #KEYS, 2 do
  if redis.call('HGET', KEYS[i], 'leaving') ~= '0' then return 0 end
end
redis.call('SET', KEYS[1], ARGV[3], 'EX', ARGV[2])
for i = 2, #KEYS, 2 do
  redis.call('HSET', KEYS[i + 1], ARGV[i + 2], ARGV[i + 3])
  redis.call('EXPIRE', KEYS[i + 1], ARGV[2])
end
return 1
"""


def record(agent: str) -> str:
    """The key of an agent's record; also the channel that it listens to."""
    return f"{INDEX}:{agent}"


def beating(address: str, agent: str) -> RedisKeys:
    """The keys of an agent's heartbeat: a group of its own, without workers or frames."""
    return RedisKeys(address, record(agent), 0, b"")


def beat(agent: str) -> str:
    """The key of an agent's heartbeat."""
    return beating("", agent).beat(0)


def work(agent: str) -> str:
    """The key of an agent's assignments."""
    return f"{INDEX}:{agent}:work"


def state(agent: str) -> str:
    """The key of what became of an agent's assignments."""
    return f"{INDEX}:{agent}:state"


def lease_name(prefix: str, worker: int) -> str:
    """The field of one worker of one group, in both."""
    return f"{prefix}/{worker}"


def offer_place(agent: str) -> str:
    """Where a signed offer lies, for `Trust`."""
    return f"offer {agent}"


def work_place(agent: str, lease: str) -> str:
    """Where a signed assignment lies, for `Trust`."""
    return f"work {agent} {lease}"


def state_place(agent: str, lease: str) -> str:
    """Where a signed state lies, for `Trust`."""
    return f"state {agent} {lease}"


def told_resources(need: WorkerResources) -> Note:
    """What a worker needs, as part of a note."""
    return {"num_cpus": need.num_cpus, "memory": need.memory, "custom": dict(need.custom)}


def resources_of(note: Mapping[str, object]) -> WorkerResources:
    """The inverse of `told_resources`; what is ill-formed counts as nothing."""
    cpus, memory, custom = note.get("num_cpus"), note.get("memory"), note.get("custom")
    return WorkerResources(
        num_cpus=_amounts({"": cpus}).get(""), memory=memory if isinstance(memory, int) else None, custom=_amounts(custom)
    )


def _amounts(value: object) -> dict[str, float]:
    if not isinstance(value, dict):
        return {}
    pairs = cast("dict[str, object]", value).items()
    return {name: float(amount) for name, amount in pairs if isinstance(amount, int | float) and abs(amount) < _ABSURD}


@dataclass(frozen=True, slots=True)
class Agent:
    """One agent, and what it has given away.

    Attributes:
        connected: it listens; one that does not was killed a moment ago, or is on its way back after an outage.
    """

    info: AgentInfo
    connected: bool
    leased: Sequence[WorkerResources] = field(default_factory=tuple[WorkerResources, ...])

    def whole(self) -> Room:
        """What it has, leased or not."""
        info = self.info
        return Room(info.id, info.slots, info.cpus, info.memory, info.custom)

    def room(self) -> Room:
        """What it has left."""
        info = self.info
        custom = dict(info.custom)
        for need in self.leased:
            for name, amount in need.custom.items():
                custom[name] = custom.get(name, 0.0) - amount
        memory = None if info.memory is None else info.memory - sum(need.memory or 0 for need in self.leased)
        cpus = info.cpus - sum(need.num_cpus or 0.0 for need in self.leased)
        return Room(info.id, info.slots - len(self.leased), cpus, memory, custom)


async def read_agents(line: RedisLine, trust: Trust | None) -> tuple[list[Agent], bytes]:
    """Every living agent, by name, and the generation of leases that this shows. Forgets those that have long died.

    One that was killed moments ago still has its record, and is not `connected`.

    Args:
        trust: decides whose offers are trusted; None trusts nobody's.

    Raises:
        BackendUnavailable: the server does not answer.
    """
    generation, members = await line.call([("MGET", _GENERATION), ("SMEMBERS", INDEX)])
    ids = sorted(identity.decode("utf-8", "replace") for identity in cast("list[bytes]", members))
    commands: list[Command] = [("PUBSUB", "NUMSUB", *map(record, ids))]
    for identity in ids:
        commands += [("HGETALL", record(identity)), ("PTTL", record(identity)), ("HGETALL", work(identity))]
    replies = await line.call(commands)
    listeners = cast("list[bytes | int]", replies[0])
    agents: list[Agent] = []
    dead: list[str] = []
    for at, identity in enumerate(ids):
        fields, remaining, leases = _pairs(replies[3 * at + 1]), cast("int", replies[3 * at + 2]), _pairs(replies[3 * at + 3])
        connected = bool(listeners[2 * at + 1])
        agent = _agent(identity, remaining, fields, leases, trust, connected=connected) if fields else None
        if agent is not None and may_live(agent.info.heard, connected=connected):
            agents.append(agent)
        elif not fields:
            dead.append(identity)
    if dead:
        await line.call([("SREM", INDEX, *dead)])  # what else it had expires
    agents.sort(key=lambda agent: (agent.info.name, agent.info.id))
    return agents, cast("list[bytes | None]", generation)[0] or b""


def _pairs(reply: object) -> dict[bytes, bytes]:
    flat = cast("list[bytes]", reply)
    return dict(zip(flat[::2], flat[1::2], strict=True))


def printable(text: object) -> str:
    """What a stranger may have written, fit for a terminal: one line, no control characters."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(text))


def _agent(
    identity: str, remaining: int, fields: Mapping[bytes, bytes], leases: Mapping[bytes, bytes], trust: Trust | None, *, connected: bool
) -> Agent | None:
    sealed = fields.get(b"offer", b"")
    trusted = trust is not None and trust.unseal(offer_place(identity), sealed) is not None
    note = open_note(sealed)
    if note is None:
        return None
    try:
        info = AgentInfo(
            id=identity,
            name=printable(note["name"]),
            slots=int(cast("int", note["slots"])),
            label=printable(note["label"]),
            custom=_amounts(note["custom"]),
            host=printable(note["host"]),
            pid=int(cast("int", note["pid"])),
            cpus=float(cast("float", note["cpus"])),
            memory=None if note["memory"] is None else int(cast("int", note["memory"])),
            version=printable(note["version"]),
            python=printable(note["python"]),
            used=len(leases),
            jobs=tuple(sorted({_group(printable(name.decode("utf-8", "replace"))) for name in leases})),
            heard=max(0.0, PRESENCE - remaining / 1000),
            leaving=fields.get(b"leaving") == b"1",
            trusted=trusted,
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return None  # another program's key, or a much older version's
    return Agent(info, connected, [_leased(sealed) for sealed in leases.values()])


def _group(name: str) -> str:
    # sage:<group>:<random>/<worker>; a group may hold colons itself
    return name.partition(":")[2].rpartition(":")[0]


def _leased(sealed: bytes) -> WorkerResources:
    needs = (open_note(sealed) or {}).get("resources")
    return resources_of(cast("Note", needs)) if isinstance(needs, dict) else WorkerResources()


async def lease(line: RedisLine, agents: Iterable[Agent], generation: bytes, trust: Trust, assignments: Sequence[Note]) -> list[str] | None:
    """Lease a slot for each assignment, all or none; returns the agents' ids, or None if there is not room for all of them.

    An assignment has ``prefix``, ``worker`` and ``resources``.

    Raises:
        BackendUnavailable: the server does not answer; whether they are leased is then unknown.
        Overtaken: somebody else leased meanwhile; look again.
    """
    chosen = place([resources_of(cast("Note", note["resources"])) for note in assignments], [agent.room() for agent in agents])
    if chosen is None:
        return None
    keys, values = [_GENERATION], [generation, str(EXPIRY).encode(), secrets.token_bytes(8)]
    for agent, note in zip(chosen, assignments, strict=True):
        name = lease_name(str(note["prefix"]), cast("int", note["worker"]))
        keys += [record(agent), work(agent)]
        values += [name.encode(), trust.seal(work_place(agent, name), note)]
    [done] = await line.call([("EVAL", _LEASE, len(keys), *keys, *values)])
    if not done:
        raise Overtaken
    return chosen


class Overtaken(Exception):
    """Somebody else leased between our look and our lease. Never leaves this package."""
