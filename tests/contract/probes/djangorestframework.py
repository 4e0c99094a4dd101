from __future__ import annotations

from typing import Any

from tests.contract.probes import Probe


class DjangoRestFramework(Probe):
    makes_spans = False

    def open(self, server: Any) -> Any:
        from tests import django_project

        django_project.configure()
        from django.core.handlers.wsgi import WSGIHandler
        from django.urls import path
        from rest_framework.response import Response
        from rest_framework.views import APIView

        probe = self

        class Item(APIView):  # type: ignore[misc]
            def get(self, request: Any, item: int) -> Any:
                return Response({"item": item})

            def post(self, request: Any, item: int) -> Any:
                raise probe.error

        self.urls = django_project.urls(path("items/<int:item>", Item.as_view()))
        return WSGIHandler()

    def operate(self, app: Any) -> Any:
        return self._visit(app, "GET")

    def fail(self, app: Any, error: Exception) -> None:
        self.error = error
        self._visit(app, "POST")

    def _visit(self, app: Any, method: str) -> Any:
        from django.test import override_settings

        from tests.web import visit

        with override_settings(ROOT_URLCONF=self.urls, DEBUG_PROPAGATE_EXCEPTIONS=True):
            return visit(app, "/items/7", method)
