# /// script
# dependencies = ["aiopg==1.4.0", "psycopg2-binary==2.9.13"]
# [tool.parity]
# servers = ["postgres"]
# [[tool.parity.differences]]
# reason = "what a new connection asks the server about its types is no operation of the application"
# side = "ddtrace"
# pattern = "pg_type|pg_namespace"
# [[tool.parity.differences]]
# reason = "a statement fails when its answer comes, which ddtrace does not wait for"
# side = "ddtrace"
# pattern = "(nowhere .*) -$"
# replacement = "\\1 ERROR"
# ///
"""Connections, pools, transactions and failures of aiopg; what ddtrace shows is psycopg2's sending."""

from __future__ import annotations

import asyncio
import os

import aiopg
import psycopg2

DSN = f"host=127.0.0.1 port={os.environ['POSTGRES_PORT']} user=postgres dbname=postgres"


async def work() -> None:
    async with aiopg.connect(DSN) as connection, connection.cursor() as cursor:
        await cursor.execute("CREATE TABLE items (id integer, name text)")
        await cursor.execute("INSERT INTO items VALUES (%s, %s)", (1, "secret"))
        await cursor.execute("SELECT name FROM items WHERE id = %s", (1,))
        print(await cursor.fetchall())
        await cursor.callproc("version")
        print(len(await cursor.fetchall()))
        try:
            await cursor.execute("SELECT nothing FROM nowhere")
        except psycopg2.Error as error:
            print(type(error).__name__)
    async with (
        aiopg.create_pool(DSN, minsize=1, maxsize=1) as pool,
        pool.acquire() as connection,
        connection.cursor() as cursor,
        cursor.begin(),
    ):
        await cursor.execute("SELECT count(*) FROM items")
        print(await cursor.fetchone())


asyncio.run(work())
