# added: S3, "第一个数据管道" (the first data pipeline)
import os  # added: see the next line
os.chdir(os.path.dirname(os.path.abspath(__file__)))  # added: the snippet reads data.csv from the current folder; it lies beside this file
import sage_actor.seed_names  # added: serves the seeds' import names; `python -m sage_actor run FILE` does it by itself

from sage.core.api.env import LocalEnvironment
from sage.lib.io import FileSource, ConsoleSink

# 创建本地执行环境
env = LocalEnvironment("hello_sage")

# 定义数据流管道
data_stream = env.source(FileSource, path="data.csv")
processed_stream = data_stream.map(lambda x: x.upper())
processed_stream.sink(ConsoleSink)

# 执行管道
env.execute()
