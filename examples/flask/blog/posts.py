"""Posts, their comments, and the search."""

from typing import Any

import sqlalchemy as sa
from flask import Blueprint, abort, flash, g, redirect, render_template, request, url_for
from sqlalchemy.orm import joinedload, selectinload, undefer
from sqlalchemy.orm.exc import StaleDataError
from werkzeug.wrappers import Response

from .auth import login_required
from .models import Comment, Post, User, db

blueprint = Blueprint("posts", __name__)

LISTED = (joinedload(Post.author), undefer(Post.comment_count))


@blueprint.get("/")
def index() -> str:
    """The latest posts."""
    latest = sa.select(Post).options(*LISTED).order_by(Post.written.desc(), Post.id.desc())
    return render_template("posts.html", title="Latest", page=db.paginate(latest, per_page=10))


@blueprint.get("/search")
def search() -> str:
    """The posts that fit a text best."""
    text = request.args.get("q", "")
    query = sa.func.websearch_to_tsquery(sa.literal_column("'english'"), text)
    found = (
        sa.select(Post)
        .where(Post.words.bool_op("@@")(query))
        .options(*LISTED)
        .order_by(sa.func.ts_rank(Post.words, query).desc(), Post.id.desc())
    )
    page = db.paginate(found, per_page=10)
    return render_template("posts.html", title=f"Search: {text}", page=page)


@blueprint.get("/users/<name>")
def user(name: str) -> str:
    """What somebody wrote."""
    author = db.first_or_404(sa.select(User).where(User.name == name))
    theirs = sa.select(Post).where(Post.author_id == author.id)
    page = db.paginate(theirs.options(*LISTED).order_by(Post.id.desc()), per_page=10)
    return render_template("posts.html", title=f"By {name}", page=page)


@blueprint.get("/posts/<int:number>")
def show(number: int) -> str:
    """A post and its comments."""
    everything = (
        joinedload(Post.author),
        selectinload(Post.comments).joinedload(Comment.author),
    )
    return render_template("post.html", post=db.get_or_404(Post, number, options=everything))


@blueprint.route("/posts/new", methods=("GET", "POST"))
@login_required
def new() -> Any:
    """Publish a post."""
    if request.method == "GET":
        return render_template("edit.html", post=None)
    post = Post(author_id=g.user.id, **_written())
    db.session.add(post)
    db.session.commit()
    return redirect(url_for("posts.show", number=post.id))


@blueprint.route("/posts/<int:number>/edit", methods=("GET", "POST"))
@login_required
def edit(number: int) -> Any:
    """Change a post of one's own."""
    post = _own(number)
    if request.method == "GET":
        return render_template("edit.html", post=post)
    for name, value in _written().items():
        setattr(post, name, value)
    try:
        db.session.commit()
    except StaleDataError:
        db.session.rollback()
        flash("It was changed elsewhere meanwhile: look again.")
    return redirect(url_for("posts.show", number=number))


@blueprint.post("/posts/<int:number>/delete")
@login_required
def delete(number: int) -> Response:
    """Take a post of one's own back."""
    db.session.delete(_own(number))
    db.session.commit()
    return redirect(url_for("posts.index"))


@blueprint.post("/posts/<int:number>/comments")
@login_required
def comment(number: int) -> Response:
    """Comment on a post."""
    body = request.form["body"].strip() or abort(400)
    db.session.add(Comment(post_id=number, author_id=g.user.id, body=body))
    db.session.commit()
    return redirect(url_for("posts.show", number=number))


def _own(number: int) -> Post:
    post = db.get_or_404(Post, number)
    if post.author_id != g.user.id:
        abort(403)
    return post


def _written() -> dict[str, str]:
    fields = {name: request.form[name].strip() for name in ("title", "body")}
    if not all(fields.values()):
        abort(400)
    return fields
