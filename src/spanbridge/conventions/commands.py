"""Key-value commands without their values: words, keys and options are kept, by a table; all else becomes `?`."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

TEXT_LIMIT = 1_000
"""Characters of a command; a longer one is cut there and ends in `...`."""

KEY_LIMIT = 100
"""Characters of a key; a longer one is cut there and ends in `...`."""

WHOLE = 9
"""How many arguments a command may have for its text to be whole, and tell their number, however long they are."""

# Arguments that can show: each takes a blank and a character at least.
_ARGUMENTS = TEXT_LIMIT // 2 + 1

# So many arguments, a key among them, cannot be too long for the text.
_FEW = 100

# What follows a command's word, one letter per argument: `k` a key, `w` a word that is no secret (a subcommand, a
# parameter, an index), `o` an option (kept when it is one of `_OPTIONS`), `n` how many keys come next, `?` a value, `s`
# keys behind the word STREAMS. Letters in brackets repeat; those behind the brackets come last. What a shape does not
# tell is a value, and so are all arguments of a command that is not here.
_SHAPES = {
    "k": """
        APPEND BF.ADD BF.EXISTS BITPOS CF.ADD CF.EXISTS DECR DECRBY DUMP EXPIRETIME GEODIST GEOHASH GEOPOS GET
        GETBIT GETDEL GETRANGE GETSET HDEL HEXISTS HGET HGETALL HINCRBY HINCRBYFLOAT HKEYS HLEN HMGET HMSET HSET
        HSETNX HSTRLEN HVALS INCR INCRBY INCRBYFLOAT JSON.ARRAPPEND JSON.DEL JSON.GET JSON.SET LINDEX LLEN LPOP
        LPUSH LPUSHX LRANGE LREM LSET LTRIM MOVE PERSIST PEXPIRETIME PFADD PSETEX PTTL PUBLISH RPOP RPUSH RPUSHX
        SADD SCARD SETBIT SETEX SETNX SETRANGE SISMEMBER SMEMBERS SMISMEMBER SPOP SPUBLISH SRANDMEMBER SREM STRLEN
        SUBSTR TS.ADD TS.RANGE TTL TYPE XACK XDEL XLEN ZCARD ZCOUNT ZINCRBY ZLEXCOUNT ZMSCORE ZPOPMAX ZPOPMIN ZRANK
        ZREM ZREMRANGEBYLEX ZREMRANGEBYRANK ZREMRANGEBYSCORE ZREVRANK ZSCORE""",
    "k?[o]": "EXPIRE EXPIREAT HEXPIRE HPEXPIRE HSCAN LPOS PEXPIRE PEXPIREAT SET SSCAN ZSCAN",
    "k??[o]": """
        BITCOUNT RESTORE XPENDING XRANGE XREVRANGE XSETID ZRANGE ZRANGEBYLEX ZRANGEBYSCORE ZREVRANGE ZREVRANGEBYLEX
        ZREVRANGEBYSCORE""",
    "k????[o]": "XAUTOCLAIM XCLAIM",
    "ko": "LINSERT",
    "k[o]": """
        BITFIELD BITFIELD_RO GEOADD GEORADIUS GEORADIUSBYMEMBER GEORADIUSBYMEMBER_RO GEORADIUS_RO GEOSEARCH GETEX
        HGETDEL HGETEX HPTTL HRANDFIELD HSETEX HTTL SORT SORT_RO XADD XTRIM ZADD ZRANDMEMBER""",
    "[k]": """
        DEL EXISTS MGET PFCOUNT PFMERGE RENAME RENAMENX SDIFF SDIFFSTORE SINTER SINTERSTORE SSUBSCRIBE SUBSCRIBE
        SUNION SUNIONSTORE SUNSUBSCRIBE TOUCH UNLINK UNSUBSCRIBE WATCH""",
    "kk": "RPOPLPUSH SMOVE",
    "kk[o]": "BLMOVE BRPOPLPUSH COPY GEOSEARCHSTORE LCS LMOVE ZRANGESTORE",
    "[k]?": "BLPOP BRPOP BZPOPMAX BZPOPMIN",
    "[k?]": "MSET MSETNX",
    "[k??]": "JSON.MSET",
    "w[k]": "BITOP",
    "n[o]": "LMPOP SINTERCARD ZDIFF ZINTER ZINTERCARD ZMPOP ZUNION",
    "kn[o]": "ZDIFFSTORE ZINTERSTORE ZUNIONSTORE",
    "?n": "EVAL EVALSHA EVALSHA_RO EVAL_RO",
    "?n[o]": "BLMPOP BZMPOP",
    "wn": "FCALL FCALL_RO",
    "[o]": "SCAN",
    "[s]": "XREAD XREADGROUP",
    "w": """
        ACL CLIENT CLUSTER COMMAND DEBUG FT.AGGREGATE FT.CREATE FT.SEARCH FUNCTION LATENCY MODULE PUBSUB SCRIPT
        SENTINEL SLOWLOG""",
    "w[w?]": "CONFIG",
    "wk": "MEMORY OBJECT",
    "wk[o]": "XGROUP XINFO",
}

_OPTIONS = frozenset(
    """
    ABSTTL AFTER AGGREGATE ALPHA ANY ASC BEFORE BLOCK BY BYBOX BYLEX BYRADIUS BYSCORE CH COUNT DB DESC EX EXAT
    FIELDS FNX FORCE FREQ FROMLONLAT FROMMEMBER FULL FXX GET GROUP GT IDLE IDLETIME IDX INCR JUSTID KEEPTTL LEFT LEN
    LIMIT LT MATCH MAX MAXLEN MIN MINID MINMATCHLEN MKSTREAM NOACK NOMKSTREAM NOVALUES NX PERSIST PX PXAT RANK
    REPLACE RETRYCOUNT REV RIGHT STORE STOREDIST STREAMS SUM TIME TYPE WEIGHTS WITHCOORD WITHDIST WITHHASH
    WITHMATCHLEN WITHSCORES WITHVALUES XX
    """.split()  # noqa: SIM905  # a list of that length reads best as text
)

_COMMANDS = {word: shape for shape, words in _SHAPES.items() for word in words.split()}

_WORD = re.compile(r"[A-Za-z][\w.-]{0,39}", re.ASCII)


def redis_command(args: Sequence[Any], keys: bool = True) -> tuple[str, str]:
    """Answer a command's first word in capitals, for `db.operation.name`, and the command without its values.

    Such as `SET k ? EX ?`, `MSET a ? b ?`, `HSET h ? ?`, `CONFIG SET maxmemory ?`. Of a command that is not in the
    table, only the word is kept; the first answer is "" where there is none. Bytes that are no text, and characters
    that do not print, show as escapes, so that a command is one line. A command of 100,000 arguments costs no more than
    one that fills the text.

    Args:
        args: the words, keys and values as the application passed them; the first may hold several, as redis-py allows.
        keys: whether keys are kept; else they are masked as well.
    """
    if not args:
        return "", ""
    word = args[0]
    shape = _COMMANDS.get(word) if type(word) is str else None
    if shape == "k" and keys and 1 < len(args) < _FEW:  # most commands, without the table's generality
        return word, f"{word} {key_text(args[1])}{' ?' * (len(args) - 2)}"
    rest = args[1 : _ARGUMENTS + 1]
    if shape is None:
        first, *more = key_text(word).split() or ["?"]
        word = first.upper() if _WORD.fullmatch(first) else "?"
        rest = (*more, *rest)
        shape = _COMMANDS.get(word, "")
    roles = _roles(shape, rest)
    if not keys:
        roles = roles.replace("k", "?")
    shown = ["?" if role == "?" else _shown(arg, role) for arg, role in zip(rest, roles, strict=False)]
    return "" if word == "?" else word, _cut(" ".join([word, *shown]))


def masked(args: Sequence[Any]) -> str:
    """Write a command with every argument masked, as the contrib instrumentation of redis does: `SET ? ?`."""
    if not args:
        return ""
    return _cut(" ".join([str(args[0]), *["?"] * min(len(args) - 1, _ARGUMENTS)]))


def memcached_command(method: str, items: object = (), *, keys: bool = True) -> str:
    """Write a call of a memcached client, the method and its keys, never a value: `get k`, `set_many a b`.

    Args:
        method: the client's method.
        items: a key, several, or a mapping from keys. An iterator belongs to the client and is not read.
        keys: whether keys are kept; else they are masked.
    """
    if type(items) is str:  # most calls; nothing to be cut
        return f"{method} {key_text(items) if keys else '?'}"
    several: Iterable[Any] = (items,) if isinstance(items, _KEYS) or not isinstance(items, Collection) else items
    return _cut(" ".join([method, *[key_text(key) if keys else "?" for key in islice(several, _ARGUMENTS)]]))


def _roles(shape: str, args: Sequence[Any]) -> str:
    """Answer one letter per argument."""
    length = len(args)
    if "n" in shape:
        counter = shape.index("n")
        count = _shown(args[counter], "n") if counter < length else "?"
        if count != "?":
            shape = shape.replace("n", "n" + "k" * min(int(count), length))
    elif "s" in shape:
        words = [_shown(arg, "o") for arg in args]
        options = words.index("STREAMS") + 1 if "STREAMS" in words else length
        return "o" * options + "k" * ((length - options) // 2) + "?" * length
    return _spread(shape, length)


@lru_cache(512)
def _spread(shape: str, length: int) -> str:
    head, _, rest = shape.partition("[")
    repeated, _, last = rest.partition("]")
    between = max(length - len(head) - len(last), 0)
    return head + ((repeated or "?") * between)[:between] + last


def _shown(arg: Any, role: str) -> str:
    text = key_text(arg)
    if role == "o":
        option = text.upper()
        return option if option in _OPTIONS else "?"
    if role == "n":
        return text if text.isdecimal() and len(text) < 10 else "?"
    return text


_BYTES = (bytes, bytearray, memoryview)
_KEYS = (str, int, float, *_BYTES)


def key_text(value: Any) -> str:
    """Answer a key or word as text; `?` for what no client takes as one."""
    if type(value) is str and len(value) <= KEY_LIMIT and value.isprintable():
        return value
    if isinstance(value, str):
        text = value
    elif isinstance(value, _BYTES):
        text = bytes(value[: 4 * KEY_LIMIT + 1]).decode("utf-8", "backslashreplace")
    elif isinstance(value, _KEYS):
        text = str(value)
    else:
        return "?"
    if len(text) > KEY_LIMIT:
        text = f"{text[: KEY_LIMIT - 3]}..."
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_LIMIT else f"{text[: TEXT_LIMIT - 3]}..."
