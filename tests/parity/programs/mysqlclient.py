# /// script
# dependencies = ["mysqlclient==2.3.1"]
# [tool.parity]
# servers = ["mariadb"]
# ///
"""Cursors of all kinds, transactions and failures of mysqlclient."""

from __future__ import annotations

import os
from contextlib import closing

import MySQLdb
import MySQLdb.cursors

SERVER = {"host": "127.0.0.1", "port": int(os.environ["MARIADB_PORT"]), "user": "tester", "password": "secret"}

for connect, database in ((MySQLdb.connect, "db"), (MySQLdb.Connection, "database")):
    with closing(connect(**SERVER, **{database: "shop"})) as connection:
        cursor = connection.cursor()
        cursor.execute("CREATE TEMPORARY TABLE items (id integer, name text)")
        cursor.execute("INSERT INTO items VALUES (%s, %s)", (1, "secret"))
        connection.commit()
        cursor.execute("SELECT name FROM items WHERE id = %s", (1,))
        print(cursor.fetchall())
        cursor.executemany("INSERT INTO items VALUES (%s, %s)", [(2, "a"), (3, "b")])
        cursor.executemany("UPDATE items SET name = %s WHERE id = %s", [("c", 2), ("d", 3)])
        connection.rollback()
        for kind in (MySQLdb.cursors.DictCursor, MySQLdb.cursors.SSCursor, MySQLdb.cursors.SSDictCursor):
            with connection.cursor(kind) as special:
                special.execute(b"SELECT name FROM items ORDER BY id")
                print(special.fetchall())
        try:
            cursor.execute("SELECT nothing FROM nowhere")
        except MySQLdb.Error as error:
            print(type(error).__name__, error.args[0])
