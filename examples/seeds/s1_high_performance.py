# added: S1, "最佳实践" (best practices), the configuration for performance
import sage_actor.seed_names  # added: serves the seeds' import names; `python -m sage_actor run FILE` does it by itself
from sage.core.api.local_environment import LocalEnvironment  # added: the snippet is a configuration only

# 高性能配置模板
high_perf_config = {
    "execution": {
        "parallelism": 16,
        "buffer.timeout": 50,
        "object.reuse": True
    },
    "state": {
        "backend": "rocksdb",
        "checkpoint.interval": "30s",
        "incremental": True
    },
    "resources": {
        "taskmanager.memory.process.size": "4gb",
        "taskmanager.cpu.cores": "4"
    }
}

env = LocalEnvironment("high_performance", config=high_perf_config)  # added: a job that runs with it, in this process
env.from_batch([1, 2, 3, 4, 5]).map(lambda x: x * 2).print()  # added: something to run
env.submit()  # added: start it
