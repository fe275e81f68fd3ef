# added: S1, "快速开始" (quick start)
import sage_actor.seed_names  # added: serves the seeds' import names; `python -m sage_actor run FILE` does it by itself

from sage.core.api.local_environment import LocalEnvironment

# 创建本地环境
env = LocalEnvironment("my_app")

# 创建数据流管道
stream = env.from_batch([1, 2, 3, 4, 5])
result = stream.map(lambda x: x * 2).sink(print)

# 提交执行
env.submit()
