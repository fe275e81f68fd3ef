"""What we test with, for your tests: clocks and schedules that the test decides, a real Redis server, and the suites that
decide what is a backend, source or sink."""

from __future__ import annotations

from sage_actor.testing.manual_clock import ManualClock
from sage_actor.testing.redis_server import RedisServer, redis_server
from sage_actor.testing.simulation import Faults, Simulation, SimulationFailed, SimulationStuck

__all__ = ["Faults", "ManualClock", "RedisServer", "Simulation", "SimulationFailed", "SimulationStuck", "redis_server"]
