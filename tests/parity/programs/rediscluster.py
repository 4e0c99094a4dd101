# /// script
# dependencies = ["redis-py-cluster==2.1.3", "redis==3.5.3", "setuptools<81"]
# [tool.parity]
# servers = ["redis_cluster"]
# [[tool.parity.differences]]
# reason = "values never leave the process"
# side = "ddtrace"
# pattern = "(SET \\w+) secret"
# replacement = "\\1 ?"
# [[tool.parity.differences]]
# reason = "command words are written in capitals"
# side = "ddtrace"
# pattern = "\\| cluster \\|"
# replacement = "| CLUSTER |"
# ///
"""Commands, pipelines and failures of redis-py-cluster."""

from __future__ import annotations

import os

from rediscluster import RedisCluster

client = RedisCluster(host="127.0.0.1", port=int(os.environ["REDIS_CLUSTER_PORT"]))
print(client.set("a", "secret"), client.get("a"), client.delete("a"), client.mset({"b": "1", "c": "2"}))
print(client.mget("b", "c"))
pipeline = client.pipeline()
pipeline.set("d", "secret")
pipeline.get("d")
print(pipeline.execute())
client.set("text", "x")
try:
    client.lpush("text", "y")
except Exception as error:
    print(type(error).__name__)
