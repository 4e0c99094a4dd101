from __future__ import annotations

from typing import Any
from unittest import mock

from opentelemetry.instrumentation.utils import suppress_instrumentation

from tests.contract.probes import Probe


class Mongoengine(Probe):
    server = "mongodb_server"

    def open(self, server: Any) -> Any:
        import mongoengine

        mongoengine.connect("contract", host=server.host, port=server.port, uuidRepresentation="standard")

        class Thing(mongoengine.Document):
            name = mongoengine.StringField()
            meta = {"auto_create_index": False}  # noqa: RUF012

        with suppress_instrumentation():
            Thing.drop_collection()
            Thing(name="n").save()
        return Thing

    def close(self, document: Any) -> None:
        import mongoengine

        with suppress_instrumentation():
            mongoengine.disconnect()

    def operate(self, document: Any) -> Any:
        return [thing.name for thing in document.objects(name="n")]

    def fail(self, document: Any, error: Exception) -> None:
        with mock.patch("pymongo.synchronous.cursor.Cursor._unpack_response", side_effect=error):
            list(document.objects(name="n"))
