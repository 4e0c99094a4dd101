# /// script
# dependencies = ["mysql-connector-python==26.10.0"]
# [tool.parity]
# servers = ["mariadb"]
# [[tool.parity.differences]]
# reason = "connections of pools are traced like any other"
# side = "spanbridge"
# pattern = "SELECT user\\(\\)"
# [[tool.parity.differences]]
# reason = "so is mysql.connector.aio"
# side = "spanbridge"
# pattern = "SELECT current_role\\(\\)"
# ///
"""Cursors of all kinds, pools, transactions and failures of mysql-connector, in pools and asynchronous."""

from __future__ import annotations

import asyncio
import os
import warnings
from contextlib import closing

warnings.simplefilter("ignore")  # MariaDB lacks what newer connectors ask for, and they say so

import mysql.connector  # noqa: E402
import mysql.connector.aio as aio  # noqa: E402
from mysql.connector import pooling  # noqa: E402

SERVER = {"host": "127.0.0.1", "port": int(os.environ["MARIADB_PORT"]), "user": "tester", "password": "secret"}

with closing(mysql.connector.connect(**SERVER, database="shop", use_pure=True)) as connection:
    cursor = connection.cursor(buffered=True)
    cursor.execute("CREATE TEMPORARY TABLE items (id integer, name text)")
    cursor.execute("INSERT INTO items VALUES (%s, %s)", (1, "secret"))
    connection.commit()
    cursor.execute("SELECT name FROM items WHERE id = %s", (1,))
    print(cursor.fetchall())
    cursor.executemany("INSERT INTO items VALUES (%s, %s)", [(2, "a"), (3, "b")])
    cursor.executemany("UPDATE items SET name = %s WHERE id = %s", [("c", 2), ("d", 3)])
    connection.rollback()
    dictionary = connection.cursor(dictionary=True)
    dictionary.execute("SELECT name FROM items ORDER BY id")
    print(dictionary.fetchall())
    prepared = connection.cursor(prepared=True)
    prepared.execute("SELECT name FROM items WHERE id = %s", (1,))
    print(prepared.fetchall())
    try:
        cursor.execute("SELECT nothing FROM nowhere")
    except mysql.connector.Error as error:
        print(type(error).__name__, error.errno)

pool = pooling.MySQLConnectionPool(pool_size=1, **SERVER, database="shop", use_pure=True)
with closing(pool.get_connection()) as connection:
    cursor = connection.cursor()
    cursor.execute("SELECT user()")
    print(cursor.fetchall())


async def work() -> None:
    connection = await aio.connect(**SERVER, database="shop", ssl_disabled=True)
    cursor = await connection.cursor()
    await cursor.execute("SELECT current_role()")
    print(await cursor.fetchall())
    await cursor.close()
    await connection.close()


asyncio.run(work())
