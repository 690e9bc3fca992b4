"""Views that say which server answered."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from django.db import connection, transaction
from django.http import FileResponse, HttpRequest, JsonResponse, StreamingHttpResponse
from django.urls import path

from router.django import read_only
from tests.django.shop.models import Item


def seen() -> dict[str, int]:
    """How many items there are, and the port of the server that says so."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*), inet_server_port() FROM shop_item")
        count, port = cursor.fetchone()
    return {"count": count, "port": port}


def index(request: HttpRequest) -> JsonResponse:
    """GET tells, POST adds before it tells what was before."""
    before = seen()
    if request.method == "POST" and "only" not in request.GET:
        Item.objects.create(name="tea")
    return JsonResponse(before)


async def later(request: HttpRequest) -> JsonResponse:
    """The same by the asynchronous ORM."""
    from asgiref.sync import sync_to_async

    if request.method == "POST":
        await Item.objects.acreate(name="tea")
    assert await Item.objects.acount() >= 0
    return JsonResponse(await sync_to_async(seen)())


def stream(request: HttpRequest) -> StreamingHttpResponse:
    """Tells in a body that is made after the headers."""

    def chunks() -> Iterator[str]:
        yield str(seen()["port"])

    return StreamingHttpResponse(chunks())


async def stream_later(request: HttpRequest) -> StreamingHttpResponse:
    """The same, asynchronous."""
    from asgiref.sync import sync_to_async

    async def chunks() -> AsyncIterator[str]:
        yield str((await sync_to_async(seen)())["port"])

    return StreamingHttpResponse(chunks())


def write_late(request: HttpRequest) -> StreamingHttpResponse:
    """Adds while its body is made."""

    def chunks() -> Iterator[str]:
        Item.objects.create(name="tea")
        yield "done"

    return StreamingHttpResponse(chunks())


async def write_later(request: HttpRequest) -> StreamingHttpResponse:
    """The same, asynchronous."""

    async def chunks() -> AsyncIterator[str]:
        await Item.objects.acreate(name="tea")
        yield "done"

    return StreamingHttpResponse(chunks())


def file(request: HttpRequest) -> FileResponse:
    """This file."""
    return FileResponse(Path(__file__).open("rb"))


@read_only()
def report(request: HttpRequest) -> JsonResponse:
    """Declared to read only."""
    return JsonResponse({**seen(), "atomic": transaction.get_connection().in_atomic_block})


urlpatterns: list[Any] = [
    path("", index),
    path("later", later),
    path("stream", stream),
    path("stream-later", stream_later),
    path("write-late", write_late),
    path("write-later", write_later),
    path("file", file),
    path("report", report),
]
