# /// script
# dependencies = ["psycopg2-binary==2.9.13"]
# [tool.parity]
# servers = ["postgres"]
# [[tool.parity.differences]]
# reason = "COPY is a statement like any other"
# side = "spanbridge"
# pattern = "\\| COPY items "
# [[tool.parity.differences]]
# reason = "literals never leave the process"
# side = "ddtrace"
# pattern = "VALUES \\(\\d,.*"
# replacement = "VALUES (?) | sql | client | - | -"
# [[tool.parity.differences]]
# reason = "literals never leave the process"
# side = "ddtrace"
# pattern = "SET name = '.'"
# replacement = "SET name = ?"
# ///
"""Cursors of all kinds, pools, extras, COPY, transactions and failures of psycopg2."""

from __future__ import annotations

import io
import os
from contextlib import closing

import psycopg2
from psycopg2 import errors, extensions, extras, pool, sql

DSN = f"host=127.0.0.1 port={os.environ['POSTGRES_PORT']} user=postgres dbname=postgres"

with closing(psycopg2.connect(DSN)) as connection:
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE items (id integer, name text)")
    cursor.execute("INSERT INTO items VALUES (%s, %s)", (1, "secret"))
    connection.commit()
    cursor.execute("SELECT name FROM items WHERE id = %s", (1,))
    print(cursor.fetchall(), cursor.rowcount)
    cursor.executemany("INSERT INTO items VALUES (%s, %s)", [(2, "a"), (3, "b")])
    cursor.execute(b"SELECT count(*) FROM items")
    print(cursor.fetchone())
    cursor.execute(sql.SQL("SELECT {} FROM items ORDER BY id").format(sql.Identifier("name")))
    print(cursor.fetchmany(2))
    cursor.callproc("version")
    print(len(cursor.fetchall()))
    extras.execute_values(cursor, "INSERT INTO items VALUES %s", [(4, "c"), (5, "d")])
    extras.execute_batch(cursor, "UPDATE items SET name = %s", [("e",), ("f",)])
    connection.rollback()
    with connection.cursor("named") as named:
        named.execute("SELECT id FROM items")
        print(list(named))
    for factory in (extras.RealDictCursor, extras.DictCursor, extras.NamedTupleCursor):
        with connection.cursor(cursor_factory=factory) as special:
            special.execute("SELECT id FROM items")
            print(len(special.fetchall()))
    cursor.copy_from(io.StringIO("8\tg\n9\th\n"), "items")
    out = io.StringIO()
    cursor.copy_to(out, "items")
    print(out.getvalue())
    cursor.copy_expert("COPY items TO STDOUT", io.StringIO())
    extensions.register_type(extensions.UNICODE, connection)
    print(extensions.quote_ident("a b", cursor))
    try:
        cursor.execute("SELECT nothing FROM nowhere")
    except errors.UndefinedTable as error:
        print(type(error).__name__)
    connection.rollback()

pooled = pool.SimpleConnectionPool(1, 1, DSN, connection_factory=extras.DictConnection)
connection = pooled.getconn()
with connection.cursor() as cursor:
    cursor.execute("SELECT name FROM items")
    print(cursor.fetchone()["name"])
pooled.putconn(connection)
pooled.closeall()
