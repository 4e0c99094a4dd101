"""SQL text without its literals, and a statement's verb: one linear tokenizer with a cache, for every driver.

Table names are deliberately not looked for. Read "no literal leaves" as the rule: where two readings are possible, the
one that hides more wins.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property, lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

STATEMENT_LIMIT = 10_000
"""Characters of a statement that are looked at; a longer one is cut there and ends in `...`."""

# 512 statements of 10,000 characters and their results are 10 MB at the very worst; a usual cache stays far below 1 MB.
_REMEMBERED = 512

# A literal between the two passes. No driver sends a NUL, so it tells our literals from the application's own `?`.
_MARK = "\0"

# Every pattern below that has opened a literal or a comment also matches without its end (text cut off, quote never
# closed). So none of them can fail half-way and be tried again: that is what makes the scan linear.
_PREFIX = r"(?:(?<![\w$])(?:[BbNnXx]|[Uu]&))?"
_STANDARD_STRING = rf"{_PREFIX}'[^']*(?:''[^']*)*'?"
_BACKSLASH_STRING = r"'[^'\\]*(?:(?:''|\\.?)[^'\\]*)*'?"
_BACKSLASH_DOUBLE_QUOTED = r'"[^"\\]*(?:(?:""|\\.?)[^"\\]*)*"?'
# Some databases read \' as an escaped quote, others as the end: unless we know which, all that follows is literal.
_AMBIGUOUS_STRING = rf"{_PREFIX}'[^'\\]*(?:(?:''|\\[^'])[^'\\]*)*(?:\\(?:'.*)?|')?"
_TRIPLE_QUOTED = tuple(rf"{q}{q}{q}[^{q}\\]*(?:(?:\\.?|{q}(?!{q}{q}))[^{q}\\]*)*(?:{q}{q}{q})?" for q in "'\"")
_DOLLAR_STRING = r"(?<![\w$])\$(?P<tag>(?:[^\W\d]\w*)?)\$.*?(?:\$(?P=tag)\$|\Z)"
_ORACLE_STRING = (
    r"(?<![\w$])[Nn]?[Qq]'(?:\[.*?(?:\]'|\Z)|\(.*?(?:\)'|\Z)|\{.*?(?:\}'|\Z)|<.*?(?:>'|\Z)|(?P<q>\S).*?(?:(?P=q)'|\Z))"
)
_UUID = r"(?<![\w$])[\da-fA-F]{8}-(?:[\da-fA-F]{4}-){3}[\da-fA-F]{12}"  # bare in Cassandra
_NUMBER = r"(?<![\w$@?.])\.?\d[\w.$]*(?:(?<=[\d.][eE])[-+]\d+)?"

_DOUBLE_QUOTED = r'"[^"]*"'
_BACKTICKED = r"`[^`]*`"
_BRACKETED = r"\[[^\]]*\]"
_PLACEHOLDER = r"""(?<![\w\])}:'"?.$]):\d+|%\([^()%'"]*\)[sbt]"""  # the ones with digits of their own: `:1`, `%(id 2)s`
_OPEN_QUOTE = r'["`].*'

_LINE_COMMENT = r"--[^\n]*"
_BLOCK_COMMENT = r"/\*.*?(?:\*/|\Z)"
_NESTED_COMMENT = _BLOCK_COMMENT
for _ in range(4):
    _NESTED_COMMENT = rf"/\*(?:[^*/]+|\*(?!/)|/(?!\*)|{_NESTED_COMMENT})*(?:\*/|\Z)"

# Most characters can begin nothing of the above. Saying so first halves the time of a scan.
_START = r"(?!\B\w)(?=[^\w\s,()=]|[\da-fnquxA-FNQUX]|\s[-/#])"

_ITEM = rf"(?:[-+]\s*)?{_MARK}"
_ROW = rf"\(\s*{_ITEM}(?:\s*,\s*{_ITEM})*\s*\)"
_ROWS = re.compile(rf"{_ROW}(?:\s*,\s*{_ROW})*")

# Of the values that an exception may quote: shorter ones would take the words of the message with them.
_SHORTEST_VALUE, _LONGEST_WORD, _MOST_VALUES = 2, 8, 1000
_WORD = re.compile(r"\w+")

_VERB = re.compile(rf"(?:[\s(;{{]+|(?:--|\#|//)[^\n]*|{_BLOCK_COMMENT})*(?P<verb>[A-Za-z_]+)?", re.DOTALL)


class Dialect:
    """How a family of databases writes literals, quoted names and comments.

    Args:
        name: for people who debug.
        strings: patterns of literals, numbers apart.
        names: patterns of quoted identifiers, which are kept.
        comments: patterns of comments, which are removed.
    """

    def __init__(self, name: str, strings: tuple[str, ...], names: tuple[str, ...], comments: tuple[str, ...]) -> None:
        self.name = name
        self._strings = strings
        self._names = names
        self._comments = comments

    def __repr__(self) -> str:
        return f"Dialect({self.name!r})"

    @cached_property
    def tokens(self) -> re.Pattern[str]:
        """The pattern of all that may not be copied blindly, in the groups `name`, `comment` and `literal`."""
        names = "|".join((*self._names, _PLACEHOLDER))
        comments = "|".join(self._comments)
        literals = "|".join((*self._strings, _UUID, _NUMBER, _OPEN_QUOTE))
        return re.compile(
            rf"{_START}(?:(?P<name>{names})|(?P<comment>\s?(?:(?:{comments})\s*)+)|(?P<literal>{literals}))",
            re.DOTALL,
        )


_ANSI_COMMENTS = (_LINE_COMMENT, _BLOCK_COMMENT)

ANSI = Dialect("ansi", (_AMBIGUOUS_STRING, _DOLLAR_STRING), (_DOUBLE_QUOTED, _BACKTICKED), _ANSI_COMMENTS)
"""Any database not named below: standard quotes; a backslash before a quote hides the rest of the statement."""

CASSANDRA = Dialect("cassandra", (_STANDARD_STRING, _DOLLAR_STRING), (_DOUBLE_QUOTED,), (*_ANSI_COMMENTS, r"//[^\n]*"))
GOOGLE_SQL = Dialect(
    "google_sql",
    (*_TRIPLE_QUOTED, _BACKSLASH_STRING, _BACKSLASH_DOUBLE_QUOTED),
    (_BACKTICKED,),
    (_LINE_COMMENT, r"\#[^\n]*", _BLOCK_COMMENT),
)
MYSQL = Dialect(
    "mysql",
    (rf"{_PREFIX}{_BACKSLASH_STRING}", _BACKSLASH_DOUBLE_QUOTED),
    (_BACKTICKED,),
    (r"--(?!\S)[^\n]*", r"\#[^\n]*", _BLOCK_COMMENT),  # `5--1` is a subtraction here
)
"""Double quotes hold literals. (With ANSI_QUOTES on, they hold names, which are then hidden.)"""

ORACLE = Dialect("oracle", (_ORACLE_STRING, _STANDARD_STRING), (_DOUBLE_QUOTED,), _ANSI_COMMENTS)
POSTGRESQL = Dialect(
    "postgresql",
    (rf"(?<![\w$])[Ee]{_BACKSLASH_STRING}", _STANDARD_STRING, _DOLLAR_STRING),
    (_DOUBLE_QUOTED,),
    (_LINE_COMMENT, _NESTED_COMMENT),
)
SQLITE = Dialect("sqlite", (_STANDARD_STRING, r"\[.*"), (_DOUBLE_QUOTED, _BACKTICKED, _BRACKETED), _ANSI_COMMENTS)
"""Double quotes hold names. (SQLite takes a name that no column bears for a string; only the schema knows which.)"""

SQL_SERVER = Dialect(
    "sql_server",
    (_STANDARD_STRING, r"\$\d[\w.]*", r"\[.*"),  # `$9.99` is money
    (_DOUBLE_QUOTED, _BRACKETED),
    (_LINE_COMMENT, _NESTED_COMMENT),
)

_DIALECTS = {
    "aws.redshift": POSTGRESQL,
    "bigquery": GOOGLE_SQL,
    "cassandra": CASSANDRA,
    "cockroachdb": POSTGRESQL,
    "databricks": MYSQL,
    "gcp.spanner": GOOGLE_SQL,
    "hive": MYSQL,
    "mariadb": MYSQL,
    "microsoft.sql_server": SQL_SERVER,
    "mssql": SQL_SERVER,
    "mysql": MYSQL,
    "oracle": ORACLE,
    "oracle.db": ORACLE,
    "postgresql": POSTGRESQL,
    "redshift": POSTGRESQL,
    "spanner": GOOGLE_SQL,
    "sqlite": SQLITE,
    "vertica": POSTGRESQL,
}


def dialect_of(system: str) -> Dialect:
    """Answer the dialect for a `db.system.name` (or an older `db.system`); `ANSI` when it is not known."""
    return _DIALECTS.get(system, ANSI)


def sanitize(statement: str, dialect: Dialect = ANSI) -> str:
    """Replace every literal by `?` and remove the comments; all else is kept, whitespace and case included.

    A list that holds nothing but literals becomes `(?)`, and so do several in a row: `IN (1, 2)` -> `IN (?)`,
    `VALUES (1, 'a'), (2, 'b')` -> `VALUES (?)`. Lists with placeholders or expressions keep their shape. A comment,
    together with the blanks around it, becomes one space, or nothing at either end of the text: it may hold literals or
    trace context. Optimizer hints are comments. A sign before a number is an operator and stays, except in such lists.

    A statement without literals and comments comes back unchanged, so parameterised ones cost nothing in readability:
    `?`, `?1`, `%s`, `%(name)s`, `:name`, `:1`, `$1` and `@p1` are placeholders. NULL, TRUE and FALSE are no literals.

    Args:
        statement: the text as the application wrote it; at most `STATEMENT_LIMIT` characters are read.
        dialect: decides what double quotes, backslashes, brackets and dollars mean; see `dialect_of`.
    """
    if len(statement) <= STATEMENT_LIMIT:
        return _sanitized(statement, dialect)
    # Half a string or comment is hidden as an open one. Half a UUID would pass for names: a cut word goes altogether.
    start = statement[: STATEMENT_LIMIT - 3].rstrip("-_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    return _sanitized.__wrapped__(start, dialect) + "..."


def without_values(text: str, statement: str, dialect: Dialect, parameters: Any = None) -> str:
    """Take what a failed statement was about out of a text that quotes it, as the messages of drivers do.

    Args:
        text: such as the message of an exception.
        statement: whose literals are taken out.
        dialect: the statement's.
        parameters: what the statement was filled with, of any shape; taken out as well, unless very short.
    """
    found = (match[0] for match in dialect.tokens.finditer(statement[:STATEMENT_LIMIT]) if match.lastgroup == "literal")
    values = {*found, *islice(_texts(parameters), _MOST_VALUES)}
    values |= {value.lstrip("bBeEnNxX").strip("'\"$") for value in values}
    words = {value for value in values if _SHORTEST_VALUE < len(value) <= _LONGEST_WORD and _WORD.fullmatch(value)}
    for value in sorted(values - words, key=len, reverse=True):
        if len(value) > _SHORTEST_VALUE:
            text = text.replace(value, "?")
    # A short word may be part of the message's own ones: "dup" is no reason to hide "duplicate".
    return _WORD.sub(lambda match: "?" if match[0] in words else match[0], text) if words else text


def _texts(parameters: Any, levels: int = 8) -> Iterator[str]:
    if isinstance(parameters, (str, int, float)):
        yield str(parameters)
    elif isinstance(parameters, (bytes, bytearray)):
        yield parameters.decode("utf-8", "replace")
    elif levels and isinstance(parameters, (Mapping, list, tuple)):
        for value in parameters.values() if isinstance(parameters, Mapping) else parameters:
            yield from _texts(value, levels - 1)


def operation_name(statement: str) -> str:
    """Answer the first word in capitals, behind blanks, comments and parentheses; "" when there is none.

    A statement that begins with common table expressions is `WITH`, as in the contrib instrumentations.
    """
    if len(statement) <= STATEMENT_LIMIT:
        return _verb(statement)
    return _verb.__wrapped__(statement[:STATEMENT_LIMIT])


@lru_cache(_REMEMBERED)
def _sanitized(statement: str, dialect: Dialect) -> str:
    marked = dialect.tokens.sub(_replacement, statement.replace(_MARK, "?"))
    if _MARK not in marked:
        return marked
    return _ROWS.sub("(?)", marked).replace(_MARK, "?")


def _replacement(match: re.Match[str]) -> str:
    if match.lastgroup == "literal":
        return _MARK
    if match.lastgroup == "name":
        return match[0]
    return " " if match.start() and match.end() < len(match.string) else ""


@lru_cache(_REMEMBERED)
def _verb(statement: str) -> str:
    match = _VERB.match(statement)
    verb = match["verb"] if match else None
    return verb.upper() if verb and len(verb) <= 30 else ""
