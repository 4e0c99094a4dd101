# /// script
# dependencies = ["vertica-python==1.4.0"]
# [tool.parity]
# servers = ["vertica"]
# [[tool.parity.differences]]
# reason = "fetches are no operations, unless they are asked for"
# side = "ddtrace"
# pattern = "vertica\\.(fetch\\w+|nextset)"
# ///
"""Statements and failures of vertica-python."""

from __future__ import annotations

import os

import vertica_python

SERVER = {"host": "127.0.0.1", "port": int(os.environ["VERTICA_PORT"]), "user": "dbadmin", "password": "x"}

with vertica_python.connect(**SERVER, database="shop", tlsmode="disable") as connection:
    cursor = connection.cursor()
    cursor.execute("SELECT a FROM items WHERE a = :a", {"a": 7})
    print(cursor.fetchall())
    cursor.execute("SELECT a FROM items")
    print(cursor.fetchone())
    connection.commit()
    try:
        cursor.execute("bad")
    except vertica_python.errors.QueryError as error:
        print(type(error).__name__)
    connection.rollback()
