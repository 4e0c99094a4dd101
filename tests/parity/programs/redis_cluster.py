# /// script
# dependencies = ["redis==8.1.0"]
# [tool.parity]
# servers = ["redis_cluster"]
# [[tool.parity.differences]]
# reason = "ddtrace 4.16 looks for the commands of a pipeline where redis 8 no longer keeps them"
# side = "spanbridge"
# pattern = "\\w+\\\\n\\w+"
# replacement = "redis.command"
# ///
"""Commands, pipelines and failures of the cluster clients of redis 8, plain and asyncio."""

from __future__ import annotations

import asyncio
import os

from redis.asyncio.cluster import RedisCluster as AsyncRedisCluster
from redis.cluster import RedisCluster
from redis.exceptions import ResponseError

PORT = int(os.environ["REDIS_CLUSTER_PORT"])

client = RedisCluster(host="127.0.0.1", port=PORT, decode_responses=True)
print(client.set("a", "secret"), client.get("a"), client.get("missing"))
print(client.mset_nonatomic({"b": "1", "c": "2"}), client.mget_nonatomic("b", "c"))
pipeline = client.pipeline()
pipeline.set("d", "secret")
pipeline.get("d")
print(pipeline.execute())
try:
    client.lpush("a", "y")
except ResponseError as error:
    print(type(error).__name__)
client.close()


async def work() -> None:
    async with AsyncRedisCluster(host="127.0.0.1", port=PORT, decode_responses=True) as client:
        print(await client.set("e", "secret"), await client.get("e"))
        pipeline = client.pipeline()
        pipeline.set("f", "secret")
        pipeline.get("f")
        print(await pipeline.execute())
        try:
            await client.lpush("e", "y")
        except ResponseError as error:
            print(type(error).__name__)


asyncio.run(work())
