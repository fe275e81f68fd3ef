# added: S1, "最佳实践" (best practices), the configuration for fault tolerance
import sage_actor.seed_names  # added: serves the seeds' import names; `python -m sage_actor run FILE` does it by itself
from sage.core.api.local_environment import LocalEnvironment  # added: the snippet is a configuration only

# 容错配置示例
fault_tolerance_config = {
    "restart.strategy": "exponential-delay",
    "restart.attempts": 10,
    "restart.delay": "10s",
    "restart.max_delay": "5m",
    "checkpointing": "exactly_once",
    "checkpoint.timeout": "5m"
}

env = LocalEnvironment("fault_tolerance", config=fault_tolerance_config)  # added: a job that runs with it
env.from_batch([1, 2, 3, 4, 5]).map(lambda x: x * 2).print()  # added: something to run
env.submit()  # added: start it
