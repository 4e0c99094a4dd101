"""Statements that PostgreSQL refuses with a message that quotes a value: none may leave with a span."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from spanbridge.testing import Spans

SECRET = "topsecret"

# Each fails, and the server's message has the word.
TELLTALES: dict[str, tuple[str, tuple[Any, ...]]] = {
    "a key": ("INSERT INTO people VALUES (2, %s, now())", (SECRET,)),
    "a row": ("UPDATE people SET id = -1", ()),
    "a value": ("SELECT name::int FROM people", ()),
    "a function": ("DO $$ BEGIN PERFORM name::int FROM people; END $$", ()),
    "a parameter": ("SELECT %s::int", (SECRET,)),
    "parameters by name": ("SELECT %(name)s::int", ({"name": SECRET},)),
}


def refused_without_a_word(telltale: str, connection: Any, error: type[Exception], spans: Spans) -> None:
    """Run one of `TELLTALES` on a connection of either psycopg; look at what its span says."""
    cursor = connection.cursor()
    cursor.execute("CREATE TEMPORARY TABLE people (id int CHECK (id > 0), name text UNIQUE, born timestamptz)")
    cursor.execute("INSERT INTO people VALUES (1, %s, now())", (SECRET,))
    statement, parameters = TELLTALES[telltale]
    with pytest.raises(error, match=SECRET):  # the application sees it
        cursor.execute(statement, *parameters if telltale == "parameters by name" else [parameters])
    span = spans[-1]
    assert span["status"] == "ERROR"
    assert SECRET not in repr(span)
    first = span["description"].splitlines()[0]
    assert first.endswith(('constraint "people_name_key"', '"people_id_check"', "integer: ?"))
