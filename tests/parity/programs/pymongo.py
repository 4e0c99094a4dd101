# /// script
# dependencies = ["pymongo==4.17.0"]  # ddtrace 4.16 makes no span with a newer one
# [tool.parity]
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
# reason = "the next batch of a cursor is a round trip, which ddtrace shows as a checkout alone"
# side = "spanbridge"
# pattern = "getMore"
# [[tool.parity.differences]]
# reason = "the id of a session makes any number of resources"
# side = "ddtrace"
# pattern = "endSessions \\[.*\\]"
# replacement = "endSessions 1"
# [[tool.parity.differences]]
# reason = "a write that fails is an error, which ddtrace has on the checkout alone"
# side = "spanbridge"
# pattern = "(insert users .*)ERROR"
# replacement = "\\1-"
# [[tool.parity.differences]]
# reason = "a bulk of one update is an update like any other"
# side = "spanbridge"
# pattern = "(update|delete) bulk \\{\"_id\": \"\\?\"\\}"
# replacement = "\\1 bulk"
# [[tool.parity.differences]]
# reason = "an operation that finds no server is seen"
# side = "spanbridge"
# pattern = "pymongo.cmd \\| find \\|"
# ///
"""Reads, writes, cursors, bulks and commands of pymongo, plain and asyncio."""

from __future__ import annotations

import asyncio
import os

import pymongo
from pymongo.errors import PyMongoError

ADDRESS = ("127.0.0.1", int(os.environ["SECANTUSDB_PORT"]))

client = pymongo.MongoClient(*ADDRESS)
users = client.parity.users
users.insert_one({"_id": 1, "name": "ann", "age": 30})
print(len(users.insert_many([{"_id": number, "age": number} for number in range(2, 300)]).inserted_ids))
print(users.find_one({"name": "ann", "age": {"$gt": 3, "$in": [1, 30]}}))
print(len(list(users.find({"$or": [{"age": 5}, {"name": "ann"}]}).sort("age", 1).limit(5))))
print(len(list(users.find({}, {"name": 1}).batch_size(100))))
print(len(list(users.find({"age": {"$lt": 50}}).hint([("_id", 1)]).comment("why").max_time_ms(5000))))
print(users.update_one({"_id": 1}, {"$set": {"age": 31}}).modified_count)
print(users.update_many({"age": {"$lt": 5}}, {"$inc": {"age": 1}}).modified_count)
print(users.replace_one({"_id": 2}, {"name": "x"}).matched_count)
print(users.delete_one({"_id": 3}).deleted_count, users.delete_many({"age": {"$gt": 250}}).deleted_count)
print(users.count_documents({"age": {"$gt": 1}}), users.estimated_document_count())
print(len(users.distinct("age", {"age": {"$lt": 10}})))
print(len(list(users.aggregate([{"$match": {"age": {"$gt": 5}}}, {"$limit": 2}]))))
print(users.find_one_and_update({"_id": 5}, {"$set": {"a": 1}}))
print(users.create_index("name"), len(list(users.list_indexes())), client.parity.list_collection_names())
print(client.parity.command("ping")["ok"], client.parity.command("buildInfo")["ok"])
bulk = [pymongo.InsertOne({"_id": 1}), pymongo.UpdateOne({"_id": 1}, {"$set": {"b": 1}}), pymongo.DeleteOne({"_id": 1})]
print(client.parity.bulk.bulk_write(bulk).inserted_count)
for fault in (
    lambda: users.insert_one({"_id": 1}),
    lambda: client.parity.command("nosuch", 1),
    lambda: users.find_one({"$bad": 1}),
    lambda: pymongo.MongoClient("127.0.0.1", 1, serverSelectionTimeoutMS=200).parity.users.find_one(),
):
    try:
        fault()
    except PyMongoError as error:
        print(type(error).__name__)
users.drop()
client.close()


async def work() -> None:
    async with pymongo.AsyncMongoClient(*ADDRESS) as client:
        users = client.parity.users
        await users.insert_one({"_id": 1, "name": "ann"})
        print(await users.find_one({"name": "ann"}))
        print([document async for document in users.find({"name": {"$ne": "x"}}).sort("name", 1)])
        await users.drop()


asyncio.run(work())
