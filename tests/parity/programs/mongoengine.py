# /// script
# dependencies = ["mongoengine==0.29.3", "pymongo==4.13.2"]
# [tool.parity]
# ddtrace = "3.10.3"  # 4.0 dropped it
# servers = ["secantusdb"]
# [[tool.parity.differences]]
# reason = "one span per operation: no second one for the connection that it takes"
# side = "ddtrace"
# pattern = "pymongo.checkout"
# [[tool.parity.differences]]
# reason = "handshakes and heartbeats are no operations of the application"
# side = "ddtrace"
# pattern = "(hello|ismaster) 1"
# [[tool.parity.differences]]
# reason = "the id of a session makes any number of resources"
# side = "ddtrace"
# pattern = "endSessions \\[.*\\]"
# replacement = "endSessions 1"
# ///
"""Documents and querysets of mongoengine."""

from __future__ import annotations

import os

import mongoengine

mongoengine.connect("parity", host="127.0.0.1", port=int(os.environ["SECANTUSDB_PORT"]), uuidRepresentation="standard")


class User(mongoengine.Document):
    name = mongoengine.StringField()
    age = mongoengine.IntField()
    meta = {"auto_create_index": False}  # noqa: RUF012


ann = User(name="ann", age=30).save()
User(name="bob", age=40).save()
print([user.name for user in User.objects(age__gt=35)])
print(User.objects(name="ann").first().age, User.objects.count())
print(User.objects(name="ann").update(age=31))
ann.reload()
print(ann.age)
ann.delete()
User.drop_collection()
mongoengine.disconnect()
