"""The counts of actors as Prometheus sees them, read back with the client's own parser."""

from __future__ import annotations

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import sage_actor as sage
from sage_actor.actor.exposition import ActorCollector
from sage_actor.testing import ManualClock

Labels = tuple[tuple[str, str], ...]


class Missing(LookupError):
    pass


class Item(sage.Actor):
    expected_errors = (Missing,)

    def __init__(self) -> None:
        self.gate = asyncio.Event()

    def take(self) -> int:
        return 1

    def miss(self) -> None:
        raise Missing

    def fail(self) -> None:
        raise ValueError("broken")

    async def hold(self) -> None:
        await self.gate.wait()


class Stock(sage.Actor):
    def __init__(self, items: int) -> None:
        self.items = items

    async def on_start(self) -> None:
        for _ in range(self.items):
            await self.context.spawn(Item)
        await self.context.spawn(Item, name="special")


def scrape(registry: CollectorRegistry) -> dict[str, dict[Labels, float]]:
    found: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            assert labels not in found.setdefault(sample.name, {}), "a series stands once"
            found[sample.name][labels] = sample.value
    return found


def registered(collector: ActorCollector) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=True)
    registry.register(collector)
    return registry


def of(**labels: str) -> Labels:
    return tuple(sorted(labels.items()))


@pytest.mark.asyncio
async def test_messages_by_outcome_and_actors_without_a_name_by_their_class() -> None:
    clock = ManualClock()
    async with sage.ActorSystem("shop", clock=clock, restart=sage.FixedDelay(attempts=None, delay=0)) as system:
        stock = await system.spawn(Stock, 3, name="stock")
        items = [child.ref for child in stock.cell.lifecycle.family.children]
        for item in items:
            await item.ask(Item.take)
            with pytest.raises(Missing):
                await item.ask(Item.miss)
        with pytest.raises(sage.ActorFailed):
            await items[0].ask(Item.fail)
        await system.wait_idle()
        given_up = [items[1].ask(Item.hold), items[1].ask(Item.take)]
        await clock.advance(1)
        given_up[1].cancel()
        items[2].tell_nowait(Item.hold)
        await clock.advance(1)
        for _ in range(70):
            items[2].tell_nowait(Item.take)
        await clock.advance(2.5)
        found = scrape(registered(ActorCollector(system)))
        messages = found["sage_actor_messages_total"]
        together, special = {"system": "shop", "actor": "stock/Item-*"}, {"system": "shop", "actor": "stock/special"}
        assert messages[of(**together, outcome="handled")] == 3 + 1
        assert messages[of(**together, outcome="expected_error")] == 3
        assert messages[of(**special, outcome="handled")] == messages[of(**special, outcome="expected_error")] == 1
        assert messages[of(system="shop", actor="stock", outcome="handled")] == 0
        assert found["sage_actor_failures_total"][of(**together)] == found["sage_actor_restarts_total"][of(**together)] == 1
        assert found["sage_actor_living"] == {of(**together): 3, of(**special): 1, of(system="shop", actor="stock"): 1}
        assert found["sage_actor_mailbox_messages"][of(**together)] == sum(item.cell.queued for item in items)
        assert found["sage_actor_mailbox_age_seconds"][of(**together)] == 2.5
        assert found["sage_actor_dead_letters_total"] == {of(system="shop"): 0}
        assert found["sage_actor_spawned_total"] == {of(system="shop"): 5}
        for item in items:
            item.cell.actor.gate.set()
        await system.wait_idle()
        found = scrape(registered(ActorCollector(system)))
        assert found["sage_actor_wait_seconds"][of(**together, quantile="0.99")] == pytest.approx(2.5, rel=0.04)
        assert of(**special, quantile="0.5") not in found["sage_actor_wait_seconds"], "nothing was measured"
        one_each = scrape(registered(ActorCollector(system, unnamed=True)))
        assert len(one_each["sage_actor_living"]) == 5


@pytest.mark.asyncio
async def test_counters_never_go_back_when_actors_end() -> None:
    async with sage.ActorSystem("shop") as system:
        registry = registered(ActorCollector(system))
        handled = of(system="shop", actor="Item-*", outcome="handled")
        expected = 0
        for number in range(5):
            item = await system.spawn(Item)
            for _ in range(number + 1):
                await item.ask(Item.take)
            expected += number + 1
            assert scrape(registry)["sage_actor_messages_total"][handled] == expected
            await system.stop(item)
            assert scrape(registry)["sage_actor_messages_total"][handled] == expected
        assert scrape(registry)["sage_actor_living"] == {of(system="shop", actor="Item-*"): 0}
        for _ in range(2):  # one name, another actor
            named = await system.spawn(Item, name="named")
            await named.ask(Item.take)
            await named.ask(Item.take)
            scrape(registry)
            await system.stop(named)
        again = await system.spawn(Item, name="named")
        await again.ask(Item.take)
        assert scrape(registry)["sage_actor_messages_total"][of(system="shop", actor="named", outcome="handled")] == 5


@pytest.mark.asyncio
async def test_the_number_of_series_is_bounded() -> None:
    async with sage.ActorSystem("crowd") as system:
        for number in range(20):
            await (await system.spawn(Item, name=f"session-{number}")).ask(Item.take)
        found = scrape(registered(ActorCollector(system, limit=5)))
        assert len(found["sage_actor_living"]) == 6
        assert found["sage_actor_living"][of(system="crowd", actor="(others)")] == 15
        assert found["sage_actor_messages_total"][of(system="crowd", actor="(others)", outcome="handled")] == 15


@pytest.mark.asyncio
async def test_several_systems_and_names_that_need_escaping() -> None:
    async with sage.ActorSystem('one "quoted"') as first, sage.ActorSystem("two") as second:
        await first.spawn(Item, name="back\\slash\nline\udce9")
        await second.spawn(Item, name="plain")
        found = scrape(registered(ActorCollector(first, second)))
        assert len(found["sage_actor_living"]) == 2
        assert of(system="two", actor="plain") in found["sage_actor_living"]


@pytest.mark.asyncio
async def test_it_may_be_scraped_from_another_thread_while_actors_come_and_go() -> None:
    async with sage.ActorSystem("busy") as system:
        registry = registered(ActorCollector(system))
        over = threading.Event()
        seen: list[float] = []
        errors: list[BaseException] = []

        def scrape_on() -> None:
            try:
                while not over.is_set():
                    messages = scrape(registry).get("sage_actor_messages_total", {})
                    seen.append(messages.get(of(system="busy", actor="Item-*", outcome="handled"), 0))
            except BaseException as error:  # noqa: BLE001 - of another thread; raised again in the test's own
                errors.append(error)

        thread = threading.Thread(target=scrape_on)
        thread.start()
        async with asyncio.timeout(10):
            while len(seen) < 30 and not errors:
                items = [await system.spawn(Item) for _ in range(20)]
                await asyncio.gather(*(item.ask(Item.take) for item in items))
                for item in items:
                    await system.stop(item)
        over.set()
        thread.join()
    assert not errors
    assert seen == sorted(seen)


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["spawn", "stop", "work", "scrape"])), max_size=60))
def test_totals_are_what_a_plain_count_says(steps: list[tuple[int, str]]) -> None:
    """Scraping before every end, nothing is missed; that is the model."""

    async def main() -> None:
        async with sage.ActorSystem("model", inspect=False) as system:
            registry = registered(ActorCollector(system))
            living: dict[int, sage.ActorRef[Item]] = {}
            done = 0
            for which, step in steps:
                if step == "spawn" and which not in living:
                    living[which] = await system.spawn(Item, name=f"Item-{which}")
                elif step == "work" and which in living:
                    await living[which].ask(Item.take)
                    done += 1
                elif step == "stop" and which in living:
                    scrape(registry)
                    await system.stop(living.pop(which))
                elif step == "scrape":
                    messages = scrape(registry).get("sage_actor_messages_total", {})
                    told = messages.get(of(system="model", actor="Item-*", outcome="handled"), 0)
                    assert told == done

    asyncio.run(main())
