"""A process full of durable actors, killed with -9 at random moments: what it was told to be done is done, once."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import msgspec

from sage_actor.durable import SqliteJournal

BANK = """
import asyncio, os, random, sys
import msgspec
import sage_actor as sage
from sage_actor.durable import DurableActor, SqliteJournal

NAMES = [f"account {n}" for n in range(6)]

class Deposited(msgspec.Struct):
    amount: int
    number: str

class Sent(msgspec.Struct):
    amount: int
    to: str
    number: str

class Credit(msgspec.Struct):
    amount: int
    number: str

class Account(DurableActor):
    events = (Deposited, Sent)
    messages = (Credit,)
    snapshot_every = 25

    def __init__(self, journal):
        super().__init__(journal)
        self.balance, self.deposits, self.sent = 0, [], []

    def apply(self, event):
        if isinstance(event, Sent):
            self.balance -= event.amount
            self.sent.append([event.number, event.to])
        else:
            self.balance += event.amount
            self.deposits.append(event.number)

    async def deposit(self, amount, number):
        await self.persist(Deposited(amount, number))

    async def send(self, amount, to, number):
        await self.persist(Sent(amount, to, number), deliver=[(to, Credit(amount, number))])

    async def receive(self, credit):
        await self.persist(Deposited(credit.amount, credit.number))

    def snapshot_state(self):
        return [self.balance, self.deposits, self.sent]

    def restore_state(self, state):
        self.balance, self.deposits, self.sent = state

    def books(self):
        return self.balance, self.deposits, self.sent, len(self.owed)

async def live(accounts, life, seed):
    chance = random.Random(seed)
    os.write(1, b"open\\n")
    async def client(me):
        for n in range(10**9):
            number = f"{life}.{me}.{n}"
            source, target = chance.sample(NAMES, 2)
            if n % 3:
                await accounts[source].ask(Account.send, 1 + n % 7, target, "t" + number)
                os.write(1, f"t{number} {1 + n % 7}\\n".encode())
            else:
                await accounts[target].ask(Account.deposit, 1 + n % 5, "d" + number)
                os.write(1, f"d{number} {1 + n % 5}\\n".encode())
    await asyncio.gather(*(client(me) for me in range(5)))

async def audit(accounts):
    while True:
        books = {name: await account.ask(Account.books) for name, account in accounts.items()}
        if not any(owed for *_, owed in books.values()):
            os.write(1, msgspec.json.encode(books))
            return
        await asyncio.sleep(0.01)

async def main(path, life, seed):
    async with SqliteJournal(path) as journal, sage.ActorSystem("bank") as system:
        accounts = {name: await system.spawn(Account, journal, name=name) for name in NAMES}
        await (audit(accounts) if life == "audit" else live(accounts, life, seed))

asyncio.run(main(*sys.argv[1:]))
"""


def live_until_killed(path: Path, life: int, chance: random.Random) -> list[str]:
    """What was acknowledged. Every other life is killed by the clock, every fourth perhaps while it still recovers."""
    with subprocess.Popen([sys.executable, "-c", BANK, str(path), str(life), str(life)], stdout=subprocess.PIPE) as bank:
        assert bank.stdout is not None
        lines: list[bytes] = []
        if life % 2:
            if life % 4 == 1:
                lines.append(bank.stdout.readline())
            threading.Event().wait(chance.uniform(0, 0.15 if life % 4 == 1 else 0.5))
        else:
            lines += [bank.stdout.readline() for _ in range(chance.randrange(1, 300))]
        bank.send_signal(signal.SIGKILL)
        lines += bank.stdout.readlines()
    assert bank.returncode == -signal.SIGKILL
    return [line.decode().strip() for line in lines if line.endswith(b"\n") and line != b"open\n"]


async def ids_with_snapshots(path: Path) -> list[str]:
    async with SqliteJournal(path) as journal:
        return [name async for name in journal.ids() if await journal.load_snapshot(name)]


def test_nothing_that_was_acknowledged_is_lost_and_nothing_happens_twice(tmp_path: Path) -> None:
    path, chance, told = tmp_path / "journal", random.Random(7), list[str]()
    for life in range(8):
        told += live_until_killed(path, life, chance)
    command = [sys.executable, "-c", BANK, str(path), "audit", "0"]
    audited = subprocess.run(command, stdout=subprocess.PIPE, timeout=30, check=True)
    books: dict[str, tuple[int, list[str], list[tuple[str, str]], int]] = msgspec.json.decode(audited.stdout)

    assert asyncio.run(ids_with_snapshots(path)), "the lives were too short to mean anything"
    amounts = dict(line.split() for line in told)
    assert len(amounts) == len(told) > 50
    arrived = [number for _, deposits, _, _ in books.values() for number in deposits]
    left = [number for _, _, sent, _ in books.values() for number, _ in sent]
    assert len(set(arrived)) == len(arrived), "something came twice"
    assert len(set(left)) == len(left)
    assert {number for number in arrived if number[0] == "t"} == set(left), "a transfer is on one side only"
    assert set(amounts) <= set(arrived), "something that was acknowledged is lost"
    for name, (_, deposits, _, _) in books.items():
        for _, _, sent, _ in books.values():  # from one account to another, in the order sent
            here = [number for number, to in sent if to == name]
            assert [number for number in deposits if number in set(here)] == here
    # Of the money that came from outside, what was acknowledged is there at least.
    acknowledged = sum(int(amount) for number, amount in amounts.items() if number[0] == "d")
    assert sum(balance for balance, *_ in books.values()) >= acknowledged
