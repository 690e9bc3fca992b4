"""Users, posts and comments."""

from datetime import datetime

import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, mapped_column, relationship


class Model(DeclarativeBase):
    """Base of all models."""


# Without it each object would be read again after a commit, from the primary.
db = SQLAlchemy(model_class=Model, session_options={"expire_on_commit": False})


class User(db.Model):  # type: ignore[name-defined,misc]
    """Somebody who writes."""

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(40), unique=True)
    password: Mapped[str]
    since: Mapped[datetime] = mapped_column(server_default=sa.func.now())
    posts: Mapped[list["Post"]] = relationship(back_populates="author")


class Comment(db.Model):  # type: ignore[name-defined,misc]
    """A comment on a post."""

    id: Mapped[int] = mapped_column(primary_key=True)
    post_id: Mapped[int] = mapped_column(sa.ForeignKey("post.id", ondelete="CASCADE"), index=True)
    author_id: Mapped[int] = mapped_column(sa.ForeignKey(User.id))
    body: Mapped[str]
    written: Mapped[datetime] = mapped_column(server_default=sa.func.now())
    author: Mapped[User] = relationship()
    post: Mapped["Post"] = relationship(back_populates="comments")


class Post(db.Model):  # type: ignore[name-defined,misc]
    """A post. Its version keeps two editors from overwriting each other: what one of them edits
    may have been read from a replica."""

    id: Mapped[int] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column()
    author_id: Mapped[int] = mapped_column(sa.ForeignKey(User.id), index=True)
    title: Mapped[str] = mapped_column(sa.String(200))
    body: Mapped[str]
    written: Mapped[datetime] = mapped_column(server_default=sa.func.now(), index=True)
    words: Mapped[str] = mapped_column(
        TSVECTOR,
        sa.Computed("to_tsvector('english', title || ' ' || body)", persisted=True),
        deferred=True,
    )
    author: Mapped[User] = relationship(back_populates="posts")
    comments: Mapped[list[Comment]] = relationship(
        back_populates="post", order_by=Comment.id, passive_deletes=True
    )

    __mapper_args__ = {"version_id_col": version}
    __table_args__ = (sa.Index("post_words", "words", postgresql_using="gin"),)


Post.comment_count = column_property(
    sa.select(sa.func.count(Comment.id))
    .where(Comment.post_id == Post.id)
    .correlate_except(Comment)
    .scalar_subquery(),
    deferred=True,
)
