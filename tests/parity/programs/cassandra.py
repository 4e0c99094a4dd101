# /// script
# dependencies = ["cassandra-driver==3.30.1"]
# [tool.parity]
# ddtrace = "3.10.3"  # 4.0 dropped it
# servers = ["cassandra"]
# [[tool.parity.differences]]
# reason = "literals never leave the process: statements are sanitised as the Agent would"
# side = "ddtrace"
# pattern = "'secret'"
# replacement = "?"
# [[tool.parity.differences]]
# reason = "a cluster that cannot be connected to is seen"
# side = "spanbridge"
# pattern = "CONNECT"
# ///
"""Statements, prepared ones, batches, pages, futures and failures, against a stand-in."""

from __future__ import annotations

import os
import threading

from cassandra import InvalidRequest
from cassandra.cluster import Cluster, NoHostAvailable
from cassandra.protocol import SyntaxException
from cassandra.query import BatchStatement, SimpleStatement

cluster = Cluster(["127.0.0.1"], port=int(os.environ["CASSANDRA_PORT"]))
session = cluster.connect()
session.set_keyspace("shop")
print(list(session.execute("SELECT a FROM t")))
print(list(session.execute("SELECT a FROM t WHERE b = %s", ("x",))))
session.execute(SimpleStatement("INSERT INTO t (a, b) VALUES (%s, 'secret')", consistency_level=1), (1,))
prepared = session.prepare("SELECT a FROM t WHERE b = ?")
print(list(session.execute(prepared, ("x",))), list(session.execute(prepared.bind(("y",)))))
batch = BatchStatement()
batch.add("INSERT INTO t (a) VALUES (%s)", (1,))
batch.add(SimpleStatement("INSERT INTO t (a) VALUES (%s)"), (2,))
session.execute(batch)
print(len(list(session.execute("SELECT a FROM pages"))))
print(session.execute_async("SELECT a FROM t").result()[0])
done = threading.Event()
session.execute_async("SELECT a FROM t").add_callbacks(lambda rows: done.set(), print)
print(done.wait(10))
for fault in (lambda: session.execute("bad statement"), lambda: session.execute_async("bad again").result()):
    try:
        fault()
    except (SyntaxException, InvalidRequest) as error:
        print(type(error).__name__)
cluster.shutdown()
try:
    Cluster(["127.0.0.1"], port=1).connect()
except NoHostAvailable as error:
    print(type(error).__name__)
