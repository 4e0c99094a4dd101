# /// script
# dependencies = ["elasticsearch==9.5.1", "aiohttp"]
# [tool.parity]
# servers = ["noida"]
# [[tool.parity.differences]]
# reason = "a request that reached no server has no HTTP status"
# side = "ddtrace"
# pattern = "500 \\| ERROR"
# replacement = "- | ERROR"
# ///
"""Documents, searches, bulks, scrolls and failures of elasticsearch, plain and asyncio."""

from __future__ import annotations

import asyncio
import os

from elasticsearch import ApiError, AsyncElasticsearch, Elasticsearch, TransportError, helpers

URL = f"http://127.0.0.1:{os.environ['NOIDA_PORT']}"

client = Elasticsearch(URL)
print(client.info()["tagline"])
client.indices.create(index="logs-2024.01.02")
for number in range(3):
    client.index(index="logs-2024.01.02", id=str(number), document={"message": f"secret {number}"}, refresh=True)
print(client.get(index="logs-2024.01.02", id="1")["_source"])
print(client.exists(index="logs-2024.01.02", id="1"), client.exists(index="logs-2024.01.02", id="77"))
print(client.search(index="logs-2024.01.02", query={"match": {"message": "secret"}})["hits"]["total"]["value"])
print(client.search(q="message:secret")["hits"]["total"]["value"] >= 3)
print(client.count(index="logs-2024.01.02")["count"])
actions = [{"_index": "other", "_id": str(number), "n": number} for number in range(25)]
print(helpers.bulk(client, actions, refresh=True))
print(client.bulk(operations=[{"index": {"_index": "other", "_id": "100"}}, {"n": 100}])["errors"])
print(len(list(helpers.scan(client, index="other", size=10))) >= 25)
print(client.delete(index="logs-2024.01.02", id="2")["result"])
for fault in (
    lambda: client.get(index="logs-2024.01.02", id="77"),
    lambda: client.search(index="absent"),
    lambda: Elasticsearch("http://127.0.0.1:1", max_retries=0).info(),
):
    try:
        fault()
    except (ApiError, TransportError) as error:
        print(type(error).__name__)
print(client.cluster.health()["status"] != "")
client.indices.delete(index="logs-2024.01.02")


async def work() -> None:
    async with AsyncElasticsearch(URL) as client:
        await client.index(index="later", id="1", document={"a": 1}, refresh=True)
        print((await client.get(index="later", id="1"))["_source"])
        try:
            await client.get(index="later", id="2")
        except ApiError as error:
            print(type(error).__name__)


asyncio.run(work())
