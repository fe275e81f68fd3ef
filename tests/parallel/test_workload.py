"""From a profile to settings that an environment takes, with reasons."""

from __future__ import annotations

import pytest

from sage_actor import ConfigError, Environment, MemoryOptimizer, WorkloadProfile, optimize_for_workload


def test_light_work_needs_no_settings() -> None:
    advice = optimize_for_workload(WorkloadProfile(1000, 1e-7))
    assert advice.settings == {}
    assert advice.reasons == {}


def test_heavy_work_gets_cores_and_short_turns() -> None:
    advice = optimize_for_workload(WorkloadProfile(2000, 0.001, cores=4))
    assert advice.settings == {"backend": "process", "parallelism": 3, "batch.records": 2}
    assert "more than one core" in advice.reasons["backend"]


def test_work_beyond_the_cores_is_said() -> None:
    advice = optimize_for_workload(WorkloadProfile(10_000, 0.001, cores=2))
    assert advice.settings["parallelism"] == 2
    assert "will fall behind" in advice.reasons["parallelism"]


def test_every_setting_has_a_reason_and_an_environment_takes_them() -> None:
    profile = WorkloadProfile(1e6, 1e-5, record_bytes=5000, cores=8, arrays=True, state_bytes=4 << 30)
    advice = optimize_for_workload(profile)
    assert set(advice.reasons) == set(advice.settings)
    settings = Environment("tuned", config=advice.settings).settings
    assert (settings.backend, settings.parallelism, settings.state_backend) == ("process", 8, "rocksdb")
    assert settings.buffer_records == 100_000


@pytest.mark.parametrize("figure", ["records_per_second", "cpu_per_record", "record_bytes", "state_bytes"])
def test_figures_below_zero_are_named(figure: str) -> None:
    with pytest.raises(ConfigError, match=f"workload.{figure}"):
        optimize_for_workload(WorkloadProfile(**{"records_per_second": 1, "cpu_per_record": 1, figure: -1}))


def test_the_optimizer_is_its_settings() -> None:
    optimizer = MemoryOptimizer({"gc_optimization": True, "memory_pool_size": "1GB"})
    assert optimizer.settings() == {"memory.gc_optimization": True, "memory.pool_size": 1 << 30, "memory.object_pooling": True}
    optimizer.enable_zero_copy()
    assert optimizer.settings()["memory.zero_copy"] is True
    with pytest.raises(ConfigError, match="gc_optimisation"):
        MemoryOptimizer({"gc_optimisation": True})
    with pytest.raises(ConfigError, match="must be true or false"):
        MemoryOptimizer({"zero_copy": 1})
