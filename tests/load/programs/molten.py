"""Handlers need types for their dependencies, not their names."""

import io
import time

import molten

from tests.load.programs import CHUNK, CHUNKS, serve, work


def ok(number: int) -> str:
    with work(number) as text:
        time.sleep(0.01)
        return text


def fails(number: int) -> str:
    with work(number) as text:
        raise ValueError(text.strip())


def stream(number: int) -> molten.Response:
    with work(number):
        return molten.Response(molten.HTTP_200, stream=io.BytesIO(CHUNK * CHUNKS))


class TextRenderer:
    """The text itself, where Molten would write JSON."""

    mime_type = "text/plain"

    def can_render_response(self, accept: str) -> bool:
        return True

    def render(self, status: str, content: object) -> molten.Response:
        return molten.Response(status, content=str(content))


views = [molten.Route("/fails/{number}", fails), molten.Route("/stream/{number}", stream)]
app = molten.App([molten.Route("/ok/{number}", ok), molten.Include("", views)], renderers=[TextRenderer()])

if __name__ == "__main__":
    serve(app)
