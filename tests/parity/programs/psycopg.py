# /// script
# dependencies = ["psycopg[binary,pool]==3.3.9"]
# [tool.parity]
# servers = ["postgres"]
# [[tool.parity.differences]]
# reason = "streams and client cursors run statements, too"
# side = "spanbridge"
# pattern = "SELECT id FROM items (ORDER BY|WHERE) id"
# [[tool.parity.differences]]
# reason = "COPY is a statement like any other"
# side = "spanbridge"
# pattern = "\\| COPY items "
# [[tool.parity.differences]]
# reason = "the steps of `transaction()` are sent to the server"
# side = "spanbridge"
# pattern = "connection\\.(savepoint|release)"
# [[tool.parity.differences]]
# reason = "one span per operation"
# side = "ddtrace"
# pattern = "\\| psycopg\\.connection\\.execute \\|"
# ///
"""Cursors of all kinds, pools, pipelines, streams, COPY, transactions and failures of psycopg 3, sync and async."""

from __future__ import annotations

import asyncio
import os
from contextlib import closing

import psycopg
from psycopg import rows, sql
from psycopg_pool import AsyncConnectionPool, ConnectionPool

DSN = f"host=127.0.0.1 port={os.environ['POSTGRES_PORT']} user=postgres dbname=postgres"

with closing(psycopg.connect(DSN)) as connection:
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE items (id integer, name text)")
    cursor.execute("INSERT INTO items VALUES (%s, %s)", (1, "secret"))
    connection.commit()
    print(cursor.execute("SELECT name FROM items WHERE id = %s", (1,)).fetchall())
    cursor.executemany("INSERT INTO items VALUES (%s, %s)", [(2, "a"), (3, "b")])
    print(connection.execute(b"SELECT count(*) FROM items").fetchone())
    query = sql.SQL("SELECT {} FROM items ORDER BY id").format(sql.Identifier("name"))
    print(connection.cursor(row_factory=rows.dict_row).execute(query).fetchmany(2))
    connection.rollback()
    with connection.cursor("named") as named:
        named.execute("SELECT id FROM items")
        print(list(named))
    with connection.pipeline():
        connection.execute("INSERT INTO items VALUES (%s, %s)", (4, "c"))
        connection.execute("DELETE FROM items WHERE id = %s", (5,))
    print(list(cursor.stream("SELECT id FROM items ORDER BY id")))
    with cursor.copy("COPY items TO STDOUT") as copy:
        print(len(list(copy)))
    print(psycopg.ClientCursor(connection).execute("SELECT id FROM items WHERE id = %s", (4,)).fetchall())
    with connection.transaction():
        connection.execute("SELECT max(id) FROM items")
    connection.commit()
    try:
        connection.execute("SELECT nothing FROM nowhere")
    except psycopg.errors.UndefinedTable as error:
        print(type(error).__name__)
    connection.rollback()

with ConnectionPool(DSN, min_size=1, max_size=1, open=True) as pool:
    connection = pool.getconn()
    print(connection.execute("SELECT name FROM items").fetchone())
    connection.rollback()
    pool.putconn(connection)


async def work() -> None:
    connection = await psycopg.AsyncConnection.connect(DSN)
    cursor = connection.cursor()
    await cursor.execute("SELECT name FROM items WHERE id = %s", (1,))
    print(await cursor.fetchall())
    await cursor.executemany("INSERT INTO items VALUES (%s, %s)", [(2, "a"), (3, "b")])
    await connection.rollback()
    print(await (await connection.execute("SELECT count(*) FROM items")).fetchone())
    await connection.commit()
    try:
        await cursor.execute("SELECT nothing FROM nowhere")
    except psycopg.errors.UndefinedTable as error:
        print(type(error).__name__)
    await connection.rollback()
    await connection.close()
    async with AsyncConnectionPool(DSN, min_size=1, max_size=1, open=False) as pool:
        connection = await pool.getconn()
        print(await (await connection.execute("SELECT name FROM items")).fetchone())
        await connection.rollback()
        await pool.putconn(connection)


asyncio.run(work())
