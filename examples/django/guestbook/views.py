"""Nothing in here knows of replicas, but for ``served``, which shows them."""

import os

from django.db import connection, transaction
from django.http import HttpRequest, JsonResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET

from guestbook.models import Entry


@csrf_exempt
def book(request: HttpRequest) -> JsonResponse:
    """GET lists the entries, POST adds one."""
    if request.method == "POST":
        with transaction.atomic():
            entry = Entry.objects.create(text=request.POST["text"])
        return answer({"id": entry.pk}, 201)
    return answer({"entries": list(Entry.objects.values("id", "text")[:100])})


@require_GET
def one(request: HttpRequest, pk: int) -> JsonResponse:
    """One entry."""
    return answer({"text": str(get_object_or_404(Entry, pk=pk))})


def answer(found: dict[str, object], status: int = 200) -> JsonResponse:
    """`found`, with the worker that answers and the port of the server it read from."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT inet_server_port()")
        (port,) = cursor.fetchone()
    return JsonResponse({**found, "worker": os.getpid(), "port": port}, status=status)
