"""A supervised bank with a durable journal, killed with -9 again and again, and right afterwards.

Accounts are event-sourced actors under a bank that supervises them. A transfer takes money from one account and owes it to
the other in one append to the journal; the delivery is repeated until the other account has booked it, and booked once however
often it comes. Accounts stumble on purpose, and their bank restarts them; the whole process is killed in the middle of it all.

This program starts itself as the bank, reads which transfers it acknowledges, kills it, and starts it on the same journal.
In the end it opens the books: no money was made or lost, and each acknowledged transfer is there, once, on both sides.
"""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

import sage_actor as sage
from sage_actor.durable import DurableActor, Journal, SqliteJournal

NAMES = ("ann", "bob", "cyd", "dan", "eve")
OPENING, KILLS, CLIENTS = 1_000, 6, 8


class Opened(msgspec.Struct, frozen=True):
    amount: int


class Sent(msgspec.Struct, frozen=True):
    transfer: str
    amount: int


class Received(msgspec.Struct, frozen=True):
    transfer: str
    amount: int


class Credit(msgspec.Struct, frozen=True):
    """What one account owes to another."""

    transfer: str
    amount: int


class Books(msgspec.Struct):
    """The state of an account; also what a snapshot holds."""

    balance: int = 0
    sent: list[str] = []
    received: list[str] = []


class Overdrawn(Exception):
    """An answer, not a failure."""


class Account(DurableActor[Opened | Sent | Received]):
    events = (Opened, Sent, Received)
    messages = (Credit,)
    state_class = Books
    snapshot_every = 200
    expected_errors = (Overdrawn,)

    def __init__(self, journal: Journal) -> None:
        super().__init__(journal)
        self.books = Books()

    def apply(self, event: Opened | Sent | Received) -> None:
        match event:
            case Opened(amount):
                self.books.balance += amount
            case Sent(transfer, amount):
                self.books.balance -= amount
                self.books.sent.append(transfer)
            case Received(transfer, amount):
                self.books.balance += amount
                self.books.received.append(transfer)

    async def on_recovered(self) -> None:
        if self.sequence == 0:
            await self.persist(Opened(OPENING))

    async def send(self, transfer: str, to: str, amount: int) -> int:
        if amount > self.books.balance:
            raise Overdrawn(f"{amount} is more than {self.books.balance}")
        await self.persist(Sent(transfer, amount), deliver=[(f"bank/{to}", Credit(transfer, amount))])
        return self.books.balance

    async def receive(self, message: object) -> None:
        if isinstance(message, Credit):
            await self.persist(Received(message.transfer, message.amount))

    def snapshot_state(self) -> Books:
        return self.books

    def restore_state(self, state: Books) -> None:
        self.books = state

    def stumble(self) -> None:
        raise RuntimeError("an account stumbles; its bank starts it again")

    def statement(self) -> tuple[Books, int]:
        return self.books, len(self.owed)


class Bank(sage.Actor):
    """Stands above the accounts. How often they fail does not matter to it: what they are is in the journal."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal

    async def on_start(self) -> None:
        again = sage.ExponentialDelay(attempts=None, delay="1ms", max_delay="50ms")
        for name in NAMES:
            await self.context.spawn(Account, self.journal, name=name, restart=again)

    def accounts(self) -> dict[str, sage.ActorRef[Account]]:
        return {ref.name: ref for ref in self.context.children}


# -- the process that is killed ---------------------------------------------------------------------------------------


async def run_bank(path: str, life: str) -> None:
    """Clients move money for ever, and say so when they are told that it is done."""
    async with SqliteJournal(path) as journal, sage.ActorSystem("town") as system:
        bank = await system.spawn(Bank, journal, name="bank")
        accounts = await bank.ask(Bank.accounts)

        async def client(number: int) -> None:
            chance, count = random.Random(), 0
            while True:
                count += 1
                source, target = chance.sample(NAMES, 2)
                transfer = f"{life}.{number}.{count}"
                try:
                    await accounts[source].ask(Account.send, transfer, target, chance.randint(1, 400))
                except Overdrawn:
                    continue
                print(transfer, flush=True)
                if count % 40 == 0:
                    await accounts[target].tell(Account.stumble)

        await asyncio.gather(*(client(number) for number in range(CLIENTS)))


# -- the process that kills -------------------------------------------------------------------------------------------


def live_and_die(path: Path, life: int) -> list[str]:
    """Start the bank, kill it after some acknowledgements, at whatever it is doing then; returns what it acknowledged."""
    errors = path.with_suffix(f".{life}.log")
    command = [sys.executable, __file__, str(path), str(life)]
    with errors.open("wb") as log, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log) as bank:
        assert bank.stdout is not None
        lines = [bank.stdout.readline() for _ in range(random.randint(1, 250))]
        time.sleep(random.uniform(0, 0.01))
        bank.send_signal(signal.SIGKILL)
        lines += bank.stdout.readlines()  # said before it died
    assert bank.returncode == -signal.SIGKILL, errors.read_text()
    return [line.decode().strip() for line in lines if line.endswith(b"\n")]


async def open_the_books(path: Path) -> dict[str, Books]:
    """One more start; when nobody owes anything any more, everything is in the books."""
    first_look = True
    async with SqliteJournal(path) as journal, sage.ActorSystem("town") as system:
        bank = await system.spawn(Bank, journal, name="bank")
        accounts = await bank.ask(Bank.accounts)
        while True:
            statements = {name: await account.ask(Account.statement) for name, account in accounts.items()}
            owed = sum(owed for _, owed in statements.values())
            if first_look:
                print(f"life {KILLS}: {owed} transfers were under way when it died, and are delivered now")
                first_look = False
            if owed == 0:
                return {name: books for name, (books, _) in statements.items()}
            await asyncio.sleep(0.01)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bank.journal"
        acknowledged: list[str] = []
        for life in range(KILLS):
            done = live_and_die(path, life)
            acknowledged += done
            print(f"life {life}: {len(done):4} transfers acknowledged, then killed with -9")
        books = asyncio.run(open_the_books(path))

    print(f"\n{'account':10}{'balance':>8}{'sent':>7}{'received':>10}")
    for name, account in sorted(books.items()):
        print(f"{name:10}{account.balance:8}{len(account.sent):7}{len(account.received):10}")
    sent = sorted(transfer for account in books.values() for transfer in account.sent)
    received = sorted(transfer for account in books.values() for transfer in account.received)
    total = sum(account.balance for account in books.values())
    print(f"{'together':10}{total:8}{len(sent):7}{len(received):10}")

    assert total == OPENING * len(NAMES), "money was made or lost"
    assert sent == received, "a transfer is on one side only"
    assert len(set(sent)) == len(sent), "a transfer was booked twice"
    assert len(set(acknowledged)) == len(acknowledged) > 0
    assert set(acknowledged) <= set(sent), "an acknowledged transfer is lost"
    assert all(account.balance >= 0 for account in books.values())
    unknown = len(sent) - len(acknowledged)
    print(f"\nall {len(acknowledged)} acknowledged transfers are in the books, once; so are {unknown} whose answer a kill cut off")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(run_bank(*sys.argv[1:]))
    else:
        main()
