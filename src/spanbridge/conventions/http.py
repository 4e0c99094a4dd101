"""What HTTP servers and clients share: methods, URLs without secrets, excluded URLs, captured headers, options."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from itertools import compress
from operator import attrgetter
from os import environ
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

from opentelemetry.trace import Status, StatusCode

from spanbridge.core.guard import first_time, guarded, logger
from spanbridge.core.options import Option, hook, setting, words
from spanbridge.core.semconv import pick

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from spanbridge.core.semconv import Semconv
    from spanbridge.core.tracing import Setup

Headers = Iterable[tuple[str, str]]
Render = Callable[[Any], dict[str, Any]]
Capture = Callable[[Headers], dict[str, Any]]

# RFC 9110, RFC 5789 and RFC 10008; any other method is `_OTHER` in attributes and `HTTP` in names.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"})

# Looked for in lower case, which is several times faster than ignoring case; and every one begins with a letter, which
# lets the search skip to the next such letter.
_NAMES = (
    r"pass|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|public[_-]?key|credential|sign(?:ed|ature)"
    r"|sig(?<=\bsig)\b|auth|session|awsaccesskeyid|consumer[_-]?(?:id|key)"
)
_VALUES = r"bearer(?:\s|%20|\+)|token(?::|%3a)|ey[ij][\w=-]+\.ey[ij]|begin(?:\s|%20|\+)"
_SECRET_NAME, _SECRET_VALUE = re.compile(_NAMES), re.compile(_VALUES)
_SECRET = re.compile(f"{_NAMES}|{_VALUES}")
# What contrib redacts in URLs, and we with it in `contrib` mode.
_CONTRIB_SECRETS = ("AWSAccessKeyId", "Signature", "sig", "X-Goog-Signature")
_SECRET_HEADERS = (
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    ".*(?:api-?key|secret|token|password).*",
)

_SYNTHETIC = (("test", ("alwayson",)), ("bot", ("googlebot", "bingbot")))


def compile_patterns(patterns: Iterable[str], source: str, flags: int = 0) -> re.Pattern[str] | None:
    """Join regular expressions; a broken one is warned about once and left out. None when nothing is left."""
    good = []
    for pattern in patterns:
        try:
            re.compile(pattern, flags)
        except re.error as error:
            if first_time(f"pattern:{pattern}"):
                logger.warning("%s: %r is no regular expression (%s) and is ignored", source, pattern, error)
        else:
            good.append(pattern)
    return re.compile("|".join(good), flags) if good else None


def normal_method(method: str) -> str:
    """Answer the method in upper case, `_OTHER` for one that no RFC knows (`http.request.method`)."""
    if method in _METHODS:
        return method
    upper = method.upper()
    if upper in _METHODS or environ.get("OTEL_PYTHON_INSTRUMENTATION_HTTP_CAPTURE_ALL_METHODS"):
        return upper
    return "_OTHER"


def span_name(method: str, target: str | None = None) -> str:
    """Answer `{method} {target}`, of low cardinality as long as `target` is.

    https://opentelemetry.io/docs/specs/semconv/http/http-spans/#name
    """
    word = "HTTP" if method == "_OTHER" else method
    if not target:
        return word
    return f"{word} {target}" if word else target


def text(value: object) -> str:
    """Answer a header's value as text, whatever type the server hands it over in."""
    if isinstance(value, str):
        return value
    return bytes(value).decode("latin-1") if isinstance(value, (bytes, bytearray, memoryview)) else str(value)


@lru_cache(maxsize=256)
def synthetic_type(user_agent: str) -> str | None:
    """Answer `test` or `bot` for a user agent that gives itself away (`user_agent.synthetic.type`)."""
    lower = user_agent.lower()
    return next((kind for kind, words_ in _SYNTHETIC if any(word in lower for word in words_)), None)


def query_cleaner(semconv: Semconv, *, client: bool) -> Callable[[str], str]:
    """Compile what makes a query string fit to leave the process."""
    if semconv.contrib:
        return lambda query: query
    if not setting("http.client.query_string" if client else "http.server.query_string", default=True):
        return lambda query: ""
    pattern: str | None = setting("http.obfuscation_pattern", None)
    if pattern is not None:
        compiled = compile_patterns([pattern] if pattern else [], "query string obfuscation")
        return (lambda query: query) if compiled is None else (lambda query: compiled.sub("<redacted>", query))
    return clean_query


def clean_query(query: str) -> str:
    """Replace `name=value` pairs that look secret by `<redacted>`; linear in the length of the query."""
    if not _SECRET.search(query.lower()):
        return query
    return "&".join("<redacted>" if _is_secret(pair.lower()) else pair for pair in query.split("&"))


def _is_secret(pair: str) -> bool:
    return bool(_SECRET_NAME.search(pair.partition("=")[0]) or _SECRET_VALUE.search(pair))


def url_cleaner(semconv: Semconv) -> Callable[[str], str]:
    """Compile what takes credentials, and secrets in the query, out of a client's URL."""
    clean = contrib_query if semconv.contrib else query_cleaner(semconv, client=True)

    def cleaned(url: str) -> str:
        if "@" in url:
            url = _without_credentials(url)
        if "?" in url:
            base, _, rest = url.partition("?")
            query, hash_sign, fragment = rest.partition("#")
            if (shown := clean(query)) != query:
                return f"{base}{'?' if shown else ''}{shown}{hash_sign}{fragment}"
        return url

    return cleaned


def secrets_remover(url: str, shown: str) -> Callable[[str], str]:
    """Make what takes the secrets of `url`, which `shown` lacks, out of a text that quotes it, as exceptions do."""
    userinfo = url.partition("://")[2].partition("/")[0].rpartition("@")[0]
    replacements = ((url.partition("?")[2], shown.partition("?")[2]), (userinfo, "REDACTED:REDACTED"))

    def remove(text: str) -> str:
        for secret, replacement in replacements:
            if secret:
                text = text.replace(secret, replacement)
        return text

    return remove


def _without_credentials(url: str) -> str:
    try:
        scheme, netloc, path, query, fragment = urlsplit(url)
    except ValueError:
        return ""
    _, at, host = netloc.rpartition("@")
    return urlunsplit((scheme, f"REDACTED:REDACTED@{host}", path, query, fragment)) if at and scheme else url


def host_and_port(url: str) -> tuple[str | None, int | None]:
    """Answer an absolute URL's host name and port; None for what it does not name, or when it cannot be read."""
    end = url.find("/", url.find("//") + 2)
    return _authority(url if end < 0 else url[:end])


@lru_cache(maxsize=1024)
def _authority(origin: str) -> tuple[str | None, int | None]:
    try:
        parts = urlsplit(origin)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None, None
    return host, port


def contrib_query(query: str) -> str:
    """Redact what contrib redacts in a query string."""
    values = parse_qs(query)
    if not any(name in values for name in _CONTRIB_SECRETS):
        return query
    return urlencode(
        {name: ["REDACTED"] if name in _CONTRIB_SECRETS else value for name, value in values.items()}, True
    )


# Options that every HTTP integration has.

EXCLUDED_URLS: Option[str | None] = Option(
    "excluded_urls",
    None,
    "Comma list of regular expressions; a request whose URL one is found in makes no span.",
    str,
    ("OTEL_PYTHON_{NAME}_EXCLUDED_URLS", "OTEL_PYTHON_EXCLUDED_URLS"),
)


TRACED_REQUEST_ATTRS: Option[str | None] = Option(
    "traced_request_attrs",
    None,
    "Comma list of attributes of the framework's request object that spans get under the same names.",
    str,
    ("OTEL_PYTHON_{NAME}_TRACED_REQUEST_ATTRS",),
)


def copied(setup: Setup) -> Callable[[object], dict[str, Any]] | None:
    """Compile what copies attributes of a framework's request object; None when none is to be copied.

    In `contrib` mode the variable is read when a request arrives, as contrib's users may set it late.
    """
    names = TRACED_REQUEST_ATTRS.variables_for(setup.integration)

    def copy(wanted: tuple[str, ...], request: object) -> dict[str, Any]:
        found = ((name, getattr(request, name, None)) for name in wanted)
        plain = (bool, int, float, str)
        return {name: value if isinstance(value, plain) else str(value) for name, value in found if value is not None}

    if setup.semconv.contrib and setup.options["traced_request_attrs"] is None:
        return lambda request: copy(words(next((raw for name in names if (raw := environ.get(name))), "")), request)
    wanted = words(setup.options["traced_request_attrs"] or "")
    return partial(copy, wanted) if wanted else None


def excluded(setup: Setup) -> Callable[[str], bool] | None:
    """Compile the test for URLs that are not to be traced; None when all are.

    In `contrib` mode the variables are read when a request arrives, as contrib's users may set them late.
    """
    given: Any = setup.options.get("excluded_urls")
    if hasattr(given, "url_disabled"):  # contrib takes its own compiled list, too
        return given.url_disabled  # type: ignore[no-any-return]

    @lru_cache(maxsize=8)
    def compiled(raw: str) -> re.Pattern[str] | None:
        return compile_patterns(words(raw), f"{setup.integration}: excluded URLs")

    def matches(raw: str, url: str) -> bool:
        pattern = compiled(raw)
        return pattern is not None and pattern.search(url) is not None

    if given is None and setup.semconv.contrib:
        names = EXCLUDED_URLS.variables_for(setup.integration)
        return lambda url: matches(next((raw for name in names if (raw := environ.get(name))), ""), url)
    return None if compiled(given or "") is None else (lambda url: matches(given or "", url))


def captured(setup: Setup, side: str, direction: str, *, joined: bool = True) -> Capture | None:
    """Compile the capture of headers as attributes; None when none is to be captured.

    Args:
        setup: what the `instrument()` call decided.
        side: `server` or `client`.
        direction: `request` or `response`.
        joined: whether contrib joins the values of a header that is repeated.

    OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_{SIDE}_{DIRECTION} lists names or regular expressions;
    ..._SANITIZE_FIELDS lists those whose values are redacted (credentials always are, except in `contrib` mode).
    https://opentelemetry.io/docs/specs/semconv/http/http-spans/ (`http.request.header.<key>`)
    """
    variable = f"{_CAPTURE}_{side.upper()}_{direction.upper()}"
    compiled = lru_cache(maxsize=8)(partial(_compile_capture, direction, setup.semconv.contrib, joined))
    given = setup.options.get(f"http_capture_headers_{side}_{direction}")
    if given is not None:
        hidden = setup.options.get("http_capture_headers_sanitize_fields")
        return compiled(",".join(given), environ.get(_SANITIZE, "") if hidden is None else ",".join(hidden))
    if setup.semconv.contrib and side == "server":
        # contrib's users may set the variables after `instrument()`.
        def late(headers: Headers) -> dict[str, Any]:
            capture = compiled(environ.get(variable, ""), environ.get(_SANITIZE, ""))
            return {} if capture is None else capture(headers)

        return late
    return compiled(environ.get(variable, ""), environ.get(_SANITIZE, ""))


_CAPTURE = "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS"
_SANITIZE = f"{_CAPTURE}_SANITIZE_FIELDS"


def _compile_capture(direction: str, contrib: bool, joined: bool, wanted: str, secret: str) -> Capture | None:
    tags: Mapping[str, str] = {} if contrib else setting("http.header_tags", {})
    if not wanted.strip() and not tags:
        return None
    pick_out = compile_patterns(words(wanted), _CAPTURE, re.IGNORECASE)
    secrets = words(secret) if contrib else (*words(secret), *_SECRET_HEADERS)
    redact = compile_patterns(secrets, _SANITIZE, re.IGNORECASE)

    def capture(headers: Headers) -> dict[str, Any]:
        attributes: dict[str, Any] = {}
        for name, value in headers:
            lower = name.lower()
            if not (wants := pick_out is not None and pick_out.fullmatch(name) is not None) and lower not in tags:
                continue
            shown = "[REDACTED]" if redact is not None and redact.search(name) else text(value)
            if tags.get(lower):
                attributes[tags[lower]] = shown
            if wants or tags.get(lower) == "":
                # contrib writes dashes as underscores and may join repeated headers; the conventions, and we, do not.
                key = f"http.{direction}.header.{lower.replace('-', '_') if contrib else lower}"
                known = attributes.setdefault(key, [])
                if contrib and joined and known:
                    known[0] += f",{shown}"
                else:
                    known.append(shown)
        return attributes

    return capture


def hooked(setup: Setup, option: str) -> Callable[..., Any] | None:
    """Answer the user's callback, guarded, or None."""
    given = setup.options.get(option)
    return guarded(given, f"{setup.integration}: {option}") if callable(given) else None


def renderer(semconv: Semconv, old: tuple[tuple[str, str], ...], stable: tuple[tuple[str, str], ...]) -> Render:
    """Compile what turns a record into attributes under the chosen names; empty fields are left out."""
    rows = pick(semconv.http, old, stable)
    keys = tuple(key for key, _ in rows)
    values_of = attrgetter(*(field for _, field in rows))

    def render(record: object) -> dict[str, Any]:
        values = values_of(record)
        return dict(compress(zip(keys, values, strict=True), values))

    return render


def status_marker(semconv: Semconv, *, server: bool) -> Callable[[Span, int], None]:
    """Compile what notes a response's status code: an error from 500 up, for clients from 400 up.

    https://opentelemetry.io/docs/specs/semconv/http/http-spans/#status
    """
    keys = (("http.status_code",) if semconv.http.old else ()) + (
        ("http.response.status_code",) if semconv.http.stable else ()
    )
    first_error = 500 if server else 400
    stable = semconv.http.stable

    def mark(span: Span, code: int) -> None:
        for key in keys:
            span.set_attribute(key, code)
        if code >= first_error or code < 100:
            if stable:
                span.set_attribute("error.type", str(code))
            span.set_status(Status(StatusCode.ERROR))

    return mark


def optional_hooks(*signatures: tuple[str, str]) -> tuple[Option[Any], ...]:
    """Declare callbacks: pairs of (keyword, signature)."""
    return tuple(hook(signature, name) for name, signature in signatures)
