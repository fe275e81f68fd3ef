# added: S1, "第一个流水线" (the first pipeline), simple_pipeline.py; expected are the three lines that S1 shows, in this order
import sage_actor.seed_names  # added: serves the seeds' import names; `python -m sage_actor run FILE` does it by itself

# simple_pipeline.py
from sage.core.api import LocalEnvironment

env = LocalEnvironment("hello-sage")

# 创建简单流水线
(env
 .from_collection(["Hello", "World", "SAGE"])
 .map(lambda x: f"Processed: {x}")
 .print()
)

env.submit()
