from __future__ import annotations

import warnings
from typing import Any

from tests.contract.probes import Probe


class Boto(Probe):
    def open(self, server: Any) -> Any:
        # It imports `imp`, and leaves an importer of the old kind before all later imports.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", ImportWarning)
        import boto.connection

        connection = boto.connection.AWSQueryConnection("x", "x", host="ec2.example", is_secure=False)
        self.error: Exception | None = None

        def answer(request: Any, *args: Any, **kwargs: Any) -> Any:
            if self.error is not None:
                raise self.error
            return Answer()

        connection._mexe = answer
        return connection

    def operate(self, connection: Any) -> Any:
        response = connection.make_request("DescribeInstances", {"MaxResults": "5"})
        return type(response), response.status

    def fail(self, connection: Any, error: Exception) -> None:
        self.error = error
        connection.make_request("DescribeInstances")


class Answer:
    status = 200
    _method = "GET"
