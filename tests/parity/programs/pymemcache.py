# /// script
# dependencies = ["pymemcache==4.0.0"]
# [tool.parity]
# servers = ["memcached"]
# ///
"""Every method of pymemcache's clients, hits, misses and failures."""

from __future__ import annotations

import os

from pymemcache.client.base import Client
from pymemcache.client.hash import HashClient
from pymemcache.exceptions import MemcacheError

ADDRESS = ("127.0.0.1", int(os.environ["MEMCACHED_PORT"]))

client = Client(ADDRESS, default_noreply=False)
print(client.flush_all())
print(client.set("a", "1"), client.add("a", "2"), client.replace("a", "3"), client.append("a", "4"))
print(client.prepend("a", "0"), client.get("a"), client.get("missing"), client.gets("missing"))
print(client.cas("a", "7", client.gets("a")[1]), client.incr("a", 2), client.decr("a", 1), client.touch("a", 60))
print(client.set_many({"b": "1", "c": "2"}), client.set_multi({"d": "3"}))
print(client.get_many(["a", "b", "missing"]), client.get_multi(["b"]), len(client.gets_many(["b", "c"])))
print(client.delete("a"), client.delete_many(["b", "c"]))
print(client.version() > b"1", len(client.stats()) > 10)
try:
    client.get("with space")
except MemcacheError as error:
    print(type(error).__name__)
client.quit()

hashing = HashClient([ADDRESS], default_noreply=False)
print(hashing.set("a", "1"), hashing.get("a"), hashing.get_many(["a", "b"]), hashing.set_many({"b": "2"}))
hashing.delete_many(["a", "b"])
hashing.close()

try:
    Client(("127.0.0.1", 1)).get("a")
except ConnectionRefusedError as error:
    print(error)
