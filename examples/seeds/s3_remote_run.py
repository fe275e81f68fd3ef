# added: S3, "分布式执行" (distributed execution), with a file as source and as sink; Kafka and databases come later
import os, tempfile  # added: for the two files
import _supervisor  # added: starts the supervisor that the snippet takes to be running on port 19001, unless one is
import sage_actor.seed_names  # added: serves the seeds' import names; `python -m sage_actor run FILE` does it by itself
from sage.core.api.function import MapFunction  # added: for the function below
from sage.lib.io import FileSink, FileSource  # added: the snippet does not say where its source and sink come from

from sage.core.api.env import RemoteEnvironment

folder = tempfile.mkdtemp()  # added: where the two files lie
with open(os.path.join(folder, "input.txt"), "w") as file:  # added: the input
    file.writelines(f"record {n}\n" for n in range(1000))  # added: the input

class ComplexProcessingFunction(MapFunction):  # added: the snippet names it and does not show it
    def map(self, line):  # added: the function
        return line.upper()[::-1]  # added: the function

# 创建远程执行环境
env = RemoteEnvironment(
    "distributed_pipeline",
    jobmanager_address="localhost:19001"
)

# 构建分布式管道
source_stream = env.source(FileSource, path=os.path.join(folder, "input.txt"))  # added: a file instead of KafkaSource, topic="input"
processed_stream = source_stream.map(ComplexProcessingFunction)
processed_stream.sink(FileSink, path=os.path.join(folder, "results.txt"))  # added: a file instead of DatabaseSink, table="results"

# 提交到集群执行
job_id = env.submit()
env.wait_for_completion(job_id)

with open(os.path.join(folder, "results.txt")) as file:  # added: a check
    assert file.read().splitlines() == [f"RECORD {n}"[::-1] for n in range(1000)]  # added: a check
print(job_id, "finished")  # added: something to see
