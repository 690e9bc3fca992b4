"""Two applications that ask the database while they are imported, for ``gunicorn --preload``.

``/write`` inserts a row, ``/read`` counts them; each answers with the worker's process id too.
"""

import os
from typing import Any

from tests.forks.kit import configure_django

URL = os.environ["APP_PRIMARY"]
REPLICAS = os.environ["APP_REPLICAS"].split(",")
INSERT = "INSERT INTO item (name) VALUES ('served')"
COUNT = "SELECT count(*) FROM item"


def flask() -> Any:
    import sqlalchemy as sa
    from flask import Flask

    from router.flask import Router

    extension, app = Router(), Flask("shop")
    app.config.from_mapping(SECRET_KEY="dev", ROUTER_DATABASE_URI=URL, ROUTER_REPLICAS=REPLICAS)
    extension.init_app(app)

    @app.get("/write")
    def write() -> str:
        extension.session.execute(sa.text(INSERT))
        extension.session.commit()
        return str(os.getpid())

    @app.get("/read")
    def read() -> str:
        return f"{os.getpid()} {extension.session.scalar(sa.text(COUNT))}"

    with app.app_context():
        extension.session.scalar(sa.text("SELECT 1"))
    return app


def django() -> Any:
    configure_django(
        URL,
        {"replicas": REPLICAS},
        ALLOWED_HOSTS=["*"],
        MIDDLEWARE=["router.django.middleware.PinMiddleware"],
        ROOT_URLCONF=__name__,
        SECRET_KEY="d" * 50,
    )
    from django.core.wsgi import get_wsgi_application
    from django.db import connection
    from django.http import HttpResponse
    from django.urls import path

    def write(_request: Any) -> Any:
        with connection.cursor() as cursor:
            cursor.execute(INSERT)
        return HttpResponse(str(os.getpid()))

    def read(_request: Any) -> Any:
        with connection.cursor() as cursor:
            cursor.execute(COUNT)
            return HttpResponse(f"{os.getpid()} {cursor.fetchone()[0]}")

    globals()["urlpatterns"] = [path("write", write), path("read", read)]
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return get_wsgi_application()


application = {"flask": flask, "django": django}[os.environ["APP"]]()
