"""Who is there: register, log in, log out."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import sqlalchemy as sa
from flask import Blueprint, flash, g, redirect, render_template, request, session, url_for
from sqlalchemy.exc import IntegrityError
from werkzeug.security import check_password_hash, generate_password_hash
from werkzeug.wrappers import Response

from .models import User, db

blueprint = Blueprint("auth", __name__)


@blueprint.before_app_request
def load_user() -> None:
    """Find out who calls; most often from a replica."""
    number = session.get("user")
    g.user = None if number is None else db.session.get(User, number)


def login_required(view: Callable[..., Any]) -> Callable[..., Any]:
    """A view for users only."""

    @wraps(view)
    def guarded(**values: Any) -> Any:
        return redirect(url_for("auth.login")) if g.user is None else view(**values)

    return guarded


@blueprint.route("/register", methods=("GET", "POST"))
def register() -> Any:
    """Make an account, and be logged in."""
    if request.method == "GET":
        return render_template("account.html", title="Register")
    name, password = request.form["name"].strip(), request.form["password"]
    if not name or not password:
        flash("A name and a password, please.")
        return render_template("account.html", title="Register"), 400
    user = User(name=name, password=generate_password_hash(password))
    db.session.add(user)
    try:
        db.session.commit()
    except IntegrityError:
        db.session.rollback()
        flash(f"{name} is taken.")
        return render_template("account.html", title="Register"), 409
    return _logged_in(user)


@blueprint.route("/login", methods=("GET", "POST"))
def login() -> Any:
    """Be logged in."""
    if request.method == "GET":
        return render_template("account.html", title="Log in")
    user = db.session.scalar(sa.select(User).where(User.name == request.form["name"].strip()))
    if user is None or not check_password_hash(user.password, request.form["password"]):
        flash("Name or password is wrong.")
        return render_template("account.html", title="Log in"), 403
    return _logged_in(user)


def _logged_in(user: User) -> Response:
    session.clear()
    session["user"] = user.id
    return redirect(url_for("posts.index"))


@blueprint.post("/logout")
def logout() -> Response:
    """Be nobody again."""
    session.clear()
    return redirect(url_for("posts.index"))
