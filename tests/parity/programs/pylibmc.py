# /// script
# dependencies = ["pylibmc==1.6.3"]
# [tool.parity]
# servers = ["memcached"]
# [[tool.parity.differences]]
# reason = "every method is traced"
# side = "spanbridge"
# pattern = "\\| (replace|add_multi|incr_multi|get_stats|flush_all) \\|"
# ///
"""Every method of pylibmc's clients, clones, pools and failures."""

from __future__ import annotations

import os

import pylibmc

client = pylibmc.Client([f"127.0.0.1:{os.environ['MEMCACHED_PORT']}"], binary=True, behaviors={"cas": True})
print(client.flush_all(), client.set("a", "1"), client.add("b", "2"), client.replace("a", "3"))
print(client.get("a"), client.get("missing"), client.get("missing", "default"), client.gets("missing"))
value, cas = client.gets("a")
print(value, client.cas("a", "4", cas), client.set("n", "5"), client.incr("n"), client.decr("n"), client.touch("n", 60))
print(client.append("a", "x"), client.prepend("a", "y"), client.get("a"))
print(client.set_multi({"c": "1", "d": "2"}), client.set_multi({"e": "1"}, key_prefix="p:"))
print(client.get_multi(["c", "d", "missing"]), client.add_multi({"f": "1"}), client.delete_multi(["c", "d"]))
print(client.delete("a"), len(client.get_stats()))
print(client.clone().get("n"))
with pylibmc.ClientPool(client, 2).reserve() as pooled:
    print(pooled.get("n"))
for fault in (lambda: client.incr("missing"), lambda: pylibmc.Client(["127.0.0.1:1"]).set("k", "v")):
    try:
        fault()
    except pylibmc.Error as error:
        print(type(error).__name__)
