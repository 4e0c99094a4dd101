# /// script
# dependencies = []
# [[tool.parity.differences]]
# reason = "literals never leave the process"
# side = "ddtrace"
# pattern = "values \\(1, 'secret'\\)"
# replacement = "values (?)"
# ///
"""sqlite3 outside of any request."""

from __future__ import annotations

import sqlite3

connection = sqlite3.connect(":memory:")
connection.execute("create table t(a int, b text)")
connection.execute("insert into t values (1, 'secret')")
connection.commit()
print(connection.execute("select b from t where a = ?", (1,)).fetchall())
try:
    connection.execute("select nothing from nowhere")
except sqlite3.OperationalError as error:
    print(error)
