from __future__ import annotations

from typing import Any

from tests.contract.probes import Probe


class Django(Probe):
    def open(self, server: Any) -> Any:
        from tests import django_project

        django_project.configure()
        from django.core.handlers.wsgi import WSGIHandler
        from django.http import HttpResponse
        from django.urls import path

        def show(request: Any, item: int) -> Any:
            return HttpResponse(f"item {item}")

        def broken(request: Any) -> None:
            raise self.error

        self.urls = django_project.urls(path("items/<int:item>", show), path("broken", broken))
        return WSGIHandler()

    def operate(self, app: Any) -> Any:
        from django.test import RequestFactory, override_settings

        answer: list[Any] = []
        environ = RequestFactory()._base_environ(PATH_INFO="/items/7")
        with override_settings(ROOT_URLCONF=self.urls):
            body = app(environ, lambda status, headers, exc_info=None: answer.append((status, headers)))
            answer.append((type(body).__name__, b"".join(body)))
            body.close()
        return answer

    def fail(self, app: Any, error: Exception) -> None:
        from django.test import RequestFactory, override_settings

        self.error = error
        environ = RequestFactory()._base_environ(PATH_INFO="/broken")
        with override_settings(ROOT_URLCONF=self.urls, DEBUG_PROPAGATE_EXCEPTIONS=True):
            app(environ, lambda status, headers, exc_info=None: None)
