# /// script
# dependencies = ["elasticsearch7==7.17.13", "opensearch-py==3.2.0", "urllib3<2"]
# [tool.parity]
# servers = ["noida", "osmem"]
# [[tool.parity.differences]]
# reason = "a request that reached no server has no HTTP status"
# side = "ddtrace"
# pattern = "(500|N/A) \\| ERROR"
# replacement = "- | ERROR"
# ///
"""The clients whose transport raises what the server answers: elasticsearch before 8.0, opensearch-py."""

from __future__ import annotations

import os

import elasticsearch7
import opensearchpy

for library, client in (
    (elasticsearch7, elasticsearch7.Elasticsearch(f"http://127.0.0.1:{os.environ['NOIDA_PORT']}")),
    (opensearchpy, opensearchpy.OpenSearch(f"http://127.0.0.1:{os.environ['OSMEM_PORT']}")),
):
    client.indices.create(index="logs-2024.01.02")
    client.index(index="logs-2024.01.02", id="1", body={"message": "secret"}, refresh=True)
    print(client.get(index="logs-2024.01.02", id="1")["_source"])
    print(client.exists(index="logs-2024.01.02", id="77"))
    query = {"query": {"match": {"message": "secret"}}}
    print(client.search(index="logs-2024.01.02", body=query)["hits"]["hits"] != [])
    print(client.search(params={"q": "message:secret"})["hits"]["hits"] != [])
    print(client.bulk(body=[{"index": {"_index": "other", "_id": "100"}}, {"n": 100}])["errors"])
    for fault in (
        lambda client=client: client.get(index="logs-2024.01.02", id="77"),
        lambda client=client: client.search(index="absent"),
    ):
        try:
            fault()
        except library.TransportError as error:
            print(type(error).__name__)
try:
    elasticsearch7.Elasticsearch("http://127.0.0.1:1", max_retries=0).info()
except elasticsearch7.TransportError as error:
    print(type(error).__name__)
