"""Key-value commands without their values: words and keys are kept, by a table of commands; all else becomes `?`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

TEXT_LIMIT = 1_000
"""Characters of a command; a longer one is cut there and ends in `...`."""

KEY_LIMIT = 100
"""Characters of a key."""

# Arguments that are looked at: one shown takes two characters at least.
_ARGUMENTS = TEXT_LIMIT // 2

_KEY_FIRST = """
    APPEND BITCOUNT BITFIELD BITFIELD_RO BITPOS DECRBY DUMP EXPIRE EXPIREAT GEOADD GEODIST GEOHASH GEOPOS GEORADIUS
    GEOSEARCH GETBIT GETEX GETRANGE GETSET HDEL HEXISTS HEXPIRE HGET HGETDEL HGETEX HINCRBY HINCRBYFLOAT HMGET HMSET
    HPEXPIRE HRANDFIELD HSCAN HSET HSETEX HSETNX HSTRLEN HTTL INCRBY INCRBYFLOAT JSON.ARRAPPEND JSON.DEL JSON.GET
    JSON.SET LINDEX LINSERT LPOP LPOS LPUSH LPUSHX LRANGE LREM LSET LTRIM MOVE PEXPIRE PEXPIREAT PFADD PSETEX PUBLISH
    RESTORE RPOP RPUSH RPUSHX SADD SET SETBIT SETEX SETNX SETRANGE SISMEMBER SMISMEMBER SORT SORT_RO SPOP SPUBLISH
    SRANDMEMBER SREM SSCAN SUBSTR TS.ADD TS.RANGE XACK XADD XAUTOCLAIM XCLAIM XDEL XLEN XPENDING XRANGE XREVRANGE XSETID
    XTRIM ZADD ZCOUNT ZINCRBY ZLEXCOUNT ZMSCORE ZPOPMAX ZPOPMIN ZRANDMEMBER ZRANGE ZRANGEBYLEX ZRANGEBYSCORE ZRANK ZREM
    ZREMRANGEBYLEX ZREMRANGEBYRANK ZREMRANGEBYSCORE ZREVRANGE ZREVRANGEBYLEX ZREVRANGEBYSCORE ZREVRANK ZSCAN ZSCORE
    BF.ADD BF.EXISTS CF.ADD CF.EXISTS FT.SEARCH FT.CREATE FT.AGGREGATE
"""
_ALL_KEYS = """
    DECR DEL EXISTS EXPIRETIME GET GETDEL HGETALL HKEYS HLEN HVALS INCR LLEN MGET PERSIST PEXPIRETIME PFCOUNT PFMERGE
    PTTL RENAME RENAMENX RPOPLPUSH SCARD SDIFF SDIFFSTORE SINTER SINTERSTORE SMEMBERS STRLEN SUBSCRIBE SUNION
    SUNIONSTORE TOUCH TTL TYPE UNLINK UNSUBSCRIBE WATCH ZCARD
"""
_TWO_KEYS = "COPY GEOSEARCHSTORE LCS LMOVE SMOVE ZRANGESTORE"
_KEYS_BUT_LAST = "BLPOP BRPOP BRPOPLPUSH BZPOPMAX BZPOPMIN"
# The second word says what is done, and is no key; what follows may be one, so it is masked.
_TWO_WORDS = """
    ACL CLIENT CLUSTER COMMAND CONFIG DEBUG FUNCTION LATENCY MEMORY MODULE OBJECT PUBSUB SCRIPT SENTINEL SLOWLOG XGROUP
    XINFO
"""



def _counted(count_at: int) -> Callable[[int, Sequence[Any]], Iterable[int]]:
    """The argument at `count_at` says how many keys follow it, as in EVAL."""

    def keys(length: int, args: Sequence[Any]) -> Iterable[int]:
        try:
            count = int(args[count_at])
        except (IndexError, TypeError, ValueError):
            return ()
        return range(count_at, min(length, count_at + 1 + max(count, 0)))

    return keys


_RULES: dict[str, Callable[[int, Sequence[Any]], Iterable[int]]] = {
    **dict.fromkeys(_KEY_FIRST.split(), lambda length, args: (1,)),
    **dict.fromkeys(_ALL_KEYS.split(), lambda length, args: range(1, length)),
    **dict.fromkeys(_TWO_KEYS.split(), lambda length, args: (1, 2)),
    **dict.fromkeys(_KEYS_BUT_LAST.split(), lambda length, args: range(1, length - 1)),
    **dict.fromkeys(("MSET", "MSETNX"), lambda length, args: range(1, length, 2)),
    **dict.fromkeys(("EVAL", "EVALSHA", "EVAL_RO", "EVALSHA_RO", "FCALL", "FCALL_RO"), _counted(2)),
    **dict.fromkeys(("ZUNION", "ZINTER", "ZDIFF", "SINTERCARD", "ZINTERCARD", "LMPOP", "ZMPOP"), _counted(1)),
}


def redis_command(args: Sequence[Any], *, keys: bool = True) -> str:
    """Write a command as text fit to leave the process: `SET k ?`, `MSET a ? b ?`, `HSET h ? ?`, `CONFIG SET ? ?`.

    Of a command that is not in the table only the word is kept. The cost is bounded, however many arguments there are.

    Args:
        args: the command's words, keys and values, as the application passed them.
        keys: whether keys are kept.
    """
    if not args:
        return ""
    verb = _text(args[0])
    length = min(len(args), _ARGUMENTS)
    shown = ["?"] * length
    shown[0] = verb
    upper = verb.upper()
    if upper in _TWO_WORDS_SET:
        if length > 1:
            shown[1] = _text(args[1])
    elif keys and (rule := _RULES.get(upper)) is not None:
        for position in rule(length, args):
            if position < length:
                shown[position] = _text(args[position])
    return _cut(" ".join(shown))


def masked(args: Sequence[Any]) -> str:
    """Write a command with every argument masked, as contrib does: `SET ? ?`."""
    if not args:
        return ""
    return _cut(" ".join([str(args[0]), *["?"] * min(len(args) - 1, _ARGUMENTS)]))


def memcached_command(method: str, keys: Iterable[Any] = ()) -> str:
    """Write a call of a memcached client: the method and its keys, never a value.

    Args:
        method: the client's method, such as `get_many`.
        keys: its keys.
    """
    shown = [method]
    for key in keys:
        shown.append(_text(key))
        if len(shown) >= _ARGUMENTS:
            break
    return _cut(" ".join(shown))


_TWO_WORDS_SET = frozenset(_TWO_WORDS.split())


def _text(value: Any) -> str:
    if isinstance(value, (bytes, bytearray, memoryview)):
        value = bytes(value[: KEY_LIMIT + 1]).decode("utf-8", "backslashreplace")
    elif not isinstance(value, str):
        value = str(value)
    return value if len(value) <= KEY_LIMIT else f"{value[:KEY_LIMIT]}..."


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_LIMIT else f"{text[: TEXT_LIMIT - 3]}..."
