"""A blog on Flask-SQLAlchemy. What pg-router adds to it stands in this file: three lines of
configuration, and the extension."""

from typing import Any

import click
from flask import Flask

import router.flask

from . import auth, posts
from .models import db

pins = router.flask.Router()


def create_app(config: dict[str, Any] | None = None) -> Flask:
    """The app, configured by `config`, or by environment variables that begin with ``BLOG_``."""
    app = Flask(__name__)
    app.config.from_mapping(
        SECRET_KEY="dev",
        SESSION_COOKIE_SAMESITE="Lax",
        SQLALCHEMY_DATABASE_URI="postgresql+psycopg://postgres@localhost/blog",
        SQLALCHEMY_ENGINE_OPTIONS={"plugins": ["router"], "replicas": [], "name": "blog"},
    )
    if config is None:
        app.config.from_prefixed_env("BLOG")
    else:
        app.config.from_mapping(config)
    db.init_app(app)
    pins.init_app(app)
    app.register_blueprint(auth.blueprint)
    app.register_blueprint(posts.blueprint)

    @app.cli.command("init-db")
    def init_db() -> None:
        """Make the tables."""
        db.create_all()
        click.echo("The tables are there.")

    return app
