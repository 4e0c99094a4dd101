"""Keys are kept, values never, and a huge command costs what a large one costs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanbridge.conventions import commands
from spanbridge.conventions.commands import (
    KEY_LIMIT,
    TEXT_LIMIT,
    masked,
    memcached_command,
    redis_command,
)


@pytest.mark.parametrize(
    ("args", "text", "without_keys"),
    [
        ((), "", ""),
        (("PING",), "PING", "PING"),
        (("GET", "k"), "GET k", "GET ?"),
        (("get", b"k"), "GET k", "GET ?"),
        (("SET", "k", "v"), "SET k ?", "SET ? ?"),
        (("SET", "k", "EX", "EX", 10, "NX"), "SET k ? EX ? NX", "SET ? ? EX ? NX"),
        (("SET", "k", "v", b"keepttl"), "SET k ? KEEPTTL", "SET ? ? KEEPTTL"),
        (("SET k secret",), "SET k ?", "SET ? ?"),
        (("MSET", "a", 1, "b", 2), "MSET a ? b ?", "MSET ? ? ? ?"),
        (("MGET", "a", "b"), "MGET a b", "MGET ? ?"),
        (("DEL", "a", "b"), "DEL a b", "DEL ? ?"),
        (("HSET", "h", "f", "v"), "HSET h ? ?", "HSET ? ? ?"),
        (("LPUSH", "l", "a", "b"), "LPUSH l ? ?", "LPUSH ? ? ?"),
        (("BLPOP", "a", "b", 5), "BLPOP a b ?", "BLPOP ? ? ?"),
        (("BLPOP", 5), "BLPOP ?", "BLPOP ?"),
        (("ZADD", "z", "NX", 1, "m"), "ZADD z NX ? ?", "ZADD ? NX ? ?"),
        (("ZUNIONSTORE", "d", 2, "a", "b", "WEIGHTS", 1, 2),
         "ZUNIONSTORE d 2 a b WEIGHTS ? ?", "ZUNIONSTORE ? 2 ? ? WEIGHTS ? ?"),
        (("SORT", "l", "BY", "w_*", "ALPHA"), "SORT l BY ? ALPHA", "SORT ? BY ? ALPHA"),
        (("LMOVE", "a", "b", "LEFT", "RIGHT"), "LMOVE a b LEFT RIGHT", "LMOVE ? ? LEFT RIGHT"),
        (("BITOP", "AND", "d", "a"), "BITOP AND d a", "BITOP AND ? ?"),
        (("SCAN", 0, "MATCH", "a*", "COUNT", 5), "SCAN ? MATCH ? COUNT ?", "SCAN ? MATCH ? COUNT ?"),
        (("EVAL", "return 'secret'", 2, "a", "b", "v"), "EVAL ? 2 a b ?", "EVAL ? 2 ? ? ?"),
        (("EVAL", "return 1", "0"), "EVAL ? 0", "EVAL ? 0"),
        (("EVAL", "return 1", "many", "a"), "EVAL ? ? ?", "EVAL ? ? ?"),
        (("EVAL", "return 1"), "EVAL ?", "EVAL ?"),
        (("EVAL", "return 1", 10**8, "a"), "EVAL ? 100000000 a", "EVAL ? 100000000 ?"),
        (("XADD", "s", "*", "f", "v"), "XADD s ? ? ?", "XADD ? ? ? ?"),
        (("XREAD", "COUNT", 1, "STREAMS", "a", "b", "$", "$"),
         "XREAD COUNT ? STREAMS a b ? ?", "XREAD COUNT ? STREAMS ? ? ? ?"),
        (("XREAD", "COUNT", 1), "XREAD COUNT ?", "XREAD COUNT ?"),
        (("XGROUP CREATE", "s", "g", "$", "MKSTREAM"), "XGROUP CREATE s ? ? MKSTREAM", "XGROUP CREATE ? ? ? MKSTREAM"),
        (("OBJECT", "ENCODING", "k"), "OBJECT ENCODING k", "OBJECT ENCODING ?"),
        (("CLUSTER SLOTS",), "CLUSTER SLOTS", "CLUSTER SLOTS"),
        (("CONFIG", "SET", "requirepass", "s"), "CONFIG SET requirepass ?", "CONFIG SET requirepass ?"),
        (("CONFIG SET", "a", 1, "b", 2), "CONFIG SET a ? b ?", "CONFIG SET a ? b ?"),
        (("ACL", "SETUSER", "bob", ">secret"), "ACL SETUSER ? ?", "ACL SETUSER ? ?"),
        (("AUTH", "bob", "secret"), "AUTH ? ?", "AUTH ? ?"),
        (("HELLO", 3, "AUTH", "bob", "secret"), "HELLO ? ? ? ?", "HELLO ? ? ? ?"),
        (("MY.OWN", "k", "v"), "MY.OWN ? ?", "MY.OWN ? ?"),
        (("GET", "k", "surplus"), "GET k ?", "GET ? ?"),
        (("a secret word",), "A ? ?", "A ? ?"),
        (("'secret'", "k"), "? ?", "? ?"),
        ((None, "k"), "? ?", "? ?"),
        (("", "k"), "? ?", "? ?"),
        (("GET", object()), "GET ?", "GET ?"),
        (["GET", 42], "GET 42", "GET ?"),
    ],
)  # fmt: skip
def test_redis_command(args, text, without_keys):
    assert redis_command(args)[1] == text
    assert redis_command(args, keys=False)[1] == without_keys


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (b"k\xff\x00", r"k\xff\x00"),
        ("a\nSET b", r"a\nSET b"),
        ("\ud800", r"\ud800"),
        ("schlüssel", "schlüssel"),
        (bytearray(b"k"), "k"),
        (memoryview(b"k"), "k"),
        ("k" * KEY_LIMIT, "k" * KEY_LIMIT),
        ("k" * (KEY_LIMIT + 1), "k" * (KEY_LIMIT - 3) + "..."),
        (b"k" * 10_000_000, "k" * (KEY_LIMIT - 3) + "..."),
        ("\U0001f511".encode() * 101, "\U0001f511" * (KEY_LIMIT - 3) + "..."),
    ],
)
def test_keys_are_short_and_on_one_line(key, text):
    assert redis_command(("GET", key)) == ("GET", f"GET {text}")


class Counting(list):  # type: ignore[type-arg]
    """A list that knows how much of it was taken."""

    taken = 0

    def __getitem__(self, index):
        items = super().__getitem__(index)
        Counting.taken += len(items) if isinstance(index, slice) else 1
        return items


def test_a_huge_command_is_cut_and_mostly_not_looked_at():
    args = Counting(["MSET", *(str(number) for number in range(200_000))])
    _, text = redis_command(args)
    assert len(text) == TEXT_LIMIT
    assert text.startswith("MSET 0 ? 2 ? 4 ?")
    assert text.endswith("...")
    assert Counting.taken < 1_000


@pytest.mark.parametrize(
    ("args", "operation"),
    [
        (("GET", "k"), "GET"),
        ((b"get", "k"), "GET"),
        (("CLUSTER SLOTS",), "CLUSTER"),
        (("SET k secret",), "SET"),
        (("'secret'",), ""),
        ((), ""),
    ],
)
def test_redis_operation(args, operation):
    assert redis_command(args)[0] == operation


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ((), ""),
        (("PING",), "PING"),
        (("SET", "k", "v"), "SET ? ?"),
        (("CLUSTER SLOTS",), "CLUSTER SLOTS"),
        ((b"SET", "k"), "b'SET' ?"),
        ((None, "k"), "None ?"),
        (("X" * 997, "a"), "X" * 997 + " ?"),
        (("X" * 999, "a"), "X" * 997 + "..."),
        (("", *"a" * 600), " ?" * 498 + " ..."),
        (("MSET", *"a" * 100_000), "MSET" + " ?" * 496 + " ..."),
    ],
)
def test_masked_is_what_contrib_writes(args, text):
    assert masked(args) == text


@pytest.mark.parametrize(
    ("method", "items", "text", "without_keys"),
    [
        ("get", "k", "get k", "get ?"),
        ("get", b"k\xff", r"get k\xff", "get ?"),
        ("get_many", ["a", b"b"], "get_many a b", "get_many ? ?"),
        ("set_many", {"a": "secret", "b": "secret"}, "set_many a b", "set_many ? ?"),
        ("set_many", {"a": 1}.keys(), "set_many a", "set_many ?"),
        ("flush_all", (), "flush_all", "flush_all"),
        ("get", 7, "get 7", "get ?"),
        ("get", None, "get ?", "get ?"),
    ],
)
def test_memcached_command(method, items, text, without_keys):
    assert memcached_command(method, items) == text
    assert memcached_command(method, items, keys=False) == without_keys


def test_an_iterator_of_memcached_keys_is_left_to_the_client():
    keys = iter(["a", "b"])
    assert memcached_command("get_many", keys) == "get_many ?"
    assert list(keys) == ["a", "b"]


def test_a_memcached_command_of_many_keys_is_cut():
    text = memcached_command("get_many", dict.fromkeys(range(100_000)))
    assert len(text) == TEXT_LIMIT
    assert text.endswith("...")


VALUE = "topsecret"
_words = st.sampled_from(sorted(commands._COMMANDS)) | st.sampled_from(["PING", "AUTH", "MY.OWN"])
_arguments = st.lists(
    st.one_of(st.just(VALUE), st.sampled_from(sorted(commands._OPTIONS)), st.integers(), st.text(max_size=3))
)


@given(_words, _arguments)
def test_masked_keys_leave_nothing(word, arguments):
    if "w" not in commands._COMMANDS.get(word, ""):
        _, text = redis_command((word, *arguments), keys=False)
        assert VALUE not in text
        assert len(text.split(" ")) == 1 + len(arguments)


@given(st.lists(st.text() | st.binary() | st.integers() | st.none() | st.floats()))
def test_any_arguments_make_one_line(args):
    operation, text = redis_command(args)
    assert text.isprintable()
    assert len(text) <= TEXT_LIMIT
    assert operation == operation.upper()
