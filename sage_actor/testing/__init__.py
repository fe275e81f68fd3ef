"""What we test with, for your tests: probes, mailboxes and faults of actors, clocks and schedules that the test decides, a real
Redis server and agents, a TCP proxy that fails on command, and the suites that decide what is a backend, connector or journal."""

from __future__ import annotations

from sage_actor.testing.agent_processes import AgentProcess, agent_processes
from sage_actor.testing.faults import Fault, FaultInjector, InjectedFailure, Struck
from sage_actor.testing.mailboxes import MailboxView, Waiting, mailbox_of
from sage_actor.testing.manual_clock import ManualClock
from sage_actor.testing.probe import MethodCall, Probe
from sage_actor.testing.redis_server import RedisServer, redis_server
from sage_actor.testing.simulated_store import StoreSink
from sage_actor.testing.simulation import Faults, Simulation, SimulationFailed, SimulationStuck
from sage_actor.testing.tcp_proxy import TcpProxy

__all__ = [
    "AgentProcess",
    "Fault",
    "FaultInjector",
    "Faults",
    "InjectedFailure",
    "MailboxView",
    "ManualClock",
    "MethodCall",
    "Probe",
    "RedisServer",
    "Simulation",
    "SimulationFailed",
    "SimulationStuck",
    "StoreSink",
    "Struck",
    "TcpProxy",
    "Waiting",
    "agent_processes",
    "mailbox_of",
    "redis_server",
]
