"""A span that is the SDK's, without the SDK's price.

What nearly every span does (start with attributes, get a few more, end) is done here with plain objects and no lock.
What few do (events, links, limits reached, values to be cleaned) is the SDK's own code, from the moment it is needed.
"""

from __future__ import annotations

from copy import copy
from threading import RLock
from time import time_ns
from typing import TYPE_CHECKING, Any

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.trace import SynchronousMultiSpanProcessor
from opentelemetry.trace import Status

from spanbridge.core.attributes import PLAIN, Checked, plain

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opentelemetry.sdk.trace import Event, ReadableSpan, SpanLimits, SpanProcessor
    from opentelemetry.sdk.util.instrumentation import InstrumentationInfo
    from opentelemetry.trace import Link, SpanContext
    from opentelemetry.util.types import Attributes, AttributeValue

    from spanbridge.recorder.tracer import Tracer

_UNSET = Status()
# What versions of the SDK differ in: whether processors hear of a span about to end, and whether the attributes of an
# ended one refuse changes.
_HAS_ON_ENDING = hasattr(sdk.SpanProcessor, "_on_ending")
_FREEZES = "_immutable" in sdk.Span.end.__code__.co_names


def bounded(attributes: Attributes, limits: SpanLimits) -> BoundedAttributes:
    """Answer the SDK's own mapping for the attributes of a span, which cleans values, keeps to limits and counts."""
    return BoundedAttributes(
        limits.max_span_attributes, attributes, immutable=False, max_value_len=limits.max_span_attribute_length
    )


class _LockOnDemand:
    """The lock that the SDK's own methods take, made when the first of them is called."""

    def __get__(self, span: Span, owner: type[Span]) -> Any:
        return span.__dict__.setdefault("_lock", RLock())  # found there, without coming here, from now on


class Span(sdk.Span):
    """One operation; made by `Tracer.start_span` only.

    Threads may write to one span at the same time. Here that takes no lock, because each change is one step of the
    interpreter on a dict or an attribute; the SDK's methods take the span's own.
    """

    # The fields have the names that they have in the SDK's span: its methods use them, and so do vendors' processors.
    __slots__ = (
        "_attributes",
        "_context",
        "_end_time",
        "_instrumentation_scope",
        "_kind",
        "_name",
        "_open",
        "_parent",
        "_resource",
        "_start_time",
        "_tracer",
    )
    if TYPE_CHECKING:
        _attributes: Any  # a dict, or the SDK's BoundedAttributes around it
        _context: SpanContext
        _open: bool
        _tracer: Tracer

    # What a span differs in only rarely; it has its own in `__dict__` then.
    _lock: Any = _LockOnDemand()
    _status: Status = _UNSET
    _events: Sequence[Event] = ()
    _links: Sequence[Link] = ()
    _record_exception: bool = True
    _set_status_on_exception: bool = True
    _record_end_metrics: Callable[[], None] | None = None

    def __new__(cls, *args: Any, **kwargs: Any) -> Span:  # noqa: D102, PYI034 - it answers nothing
        raise TypeError("Span must be instantiated via a tracer.")

    def __reduce_ex__(self, protocol: Any) -> Any:
        return copy, (self._readable_span(),)  # a copy is what the SDK hands to exporters

    @property
    def _limits(self) -> SpanLimits:
        return self._tracer._span_limits

    @property
    def _span_processor(self) -> SpanProcessor:  # type: ignore[override]
        return self._tracer.span_processor

    @property
    def _instrumentation_info(self) -> InstrumentationInfo:  # type: ignore[override]
        return self._tracer.instrumentation_info

    @property
    def attributes(self) -> Attributes:
        """The attributes, as a mapping that follows the span and that cannot be written to."""
        if self._end_time is None:
            self._bound()  # others may write while this one reads
        return super().attributes

    def _readable_span(self) -> ReadableSpan:
        if self._end_time is None:
            self._bound()
        return super()._readable_span()

    def _bound(self) -> None:
        """Leave the attributes to the SDK's own mapping from now on; the dict within stays the same."""
        with self._lock:
            attributes = self._attributes
            if type(attributes) is dict:
                self._attributes = bounded(None, self._limits)
                self._attributes._dict = attributes

    def get_span_context(self) -> SpanContext:
        """Answer what identifies the span."""
        return self._context

    def has_attribute(self, key: str) -> bool:
        """Say whether the span has an attribute, at less than the cost of `attributes`."""
        return key in self._attributes

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        """Set one attribute, unless the span has ended."""
        attributes = self._attributes
        if (
            type(attributes) is dict
            and type(value) in PLAIN
            and type(key) is str
            and key
            and len(attributes) < self._tracer.room
            and key not in attributes  # the SDK moves one that is set again to the end
            and self._end_time is None
        ):
            attributes[key] = value
        else:
            self._set(super().set_attribute, key, value)

    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        """Set several attributes, unless the span has ended."""
        own = self._attributes
        if (
            type(own) is dict
            and (type(attributes) is Checked or plain(attributes))
            and len(own) + len(attributes) < self._tracer.room
            and own.keys().isdisjoint(attributes)
            and self._end_time is None
        ):
            own.update(attributes)
        else:
            self._set(super().set_attributes, attributes)

    def _set(self, setter: Callable[..., None], *arguments: Any) -> None:
        if self._end_time is None:
            self._bound()
        setter(*arguments)

    def update_name(self, name: str) -> None:
        """Rename the span, unless it has ended."""
        if self._end_time is None:
            self._name = name
        else:
            super().update_name(name)  # says that it is too late

    def _add_event(self, event: Any) -> None:
        with self._lock:
            if self._end_time is None and type(self._events) is tuple:
                self._events = self._new_events()  # type: ignore[no-untyped-call]
            super()._add_event(event)

    def _add_link(self, link: Link) -> None:
        with self._lock:
            if self._end_time is None and type(self._links) is tuple:
                self._links = self._new_links(())
            super()._add_link(link)

    def end(self, end_time: int | None = None) -> None:
        """End the span and hand it to the processors, the first time only.

        Args:
            end_time: nanoseconds since the epoch; now when not given.
        """
        try:
            del self._open  # which one thread can do once
        except AttributeError:
            sdk.logger.warning("Calling end() on an ended span.")
            return
        self._end_time = time_ns() if end_time is None else end_time
        if _FREEZES and type(self._attributes) is not dict:
            self._attributes._immutable = True
        if self._record_end_metrics is not None:
            self._record_end_metrics()
        processor = self._tracer.span_processor
        if type(processor) is SynchronousMultiSpanProcessor:
            processors = processor._span_processors
            if _HAS_ON_ENDING:
                for each in processors:
                    each._on_ending(self)
            for each in processors:
                each.on_end(self)
        else:
            if _HAS_ON_ENDING:
                processor._on_ending(self)
            processor.on_end(self)
