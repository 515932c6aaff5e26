"""What an agent needs: orders that survive a restart, outbox, tokens, times of recipes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the columns, and the tables `outbox`, `recipes` and `tokens`."""
    for column in (
        sa.Column("is_resumable", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("cancel_reason", sa.Text, nullable=False, server_default=""),
        sa.Column("trust", sa.String(16), nullable=False, server_default="trusted"),
        sa.Column("warm_from", sa.String(64), nullable=False, server_default=""),
        sa.Column("shared_run", sa.String(64), nullable=False, server_default=""),
        sa.Column("work", sa.JSON),
    ):
        op.add_column("builds", column)
    order = sa.Column("order", sa.JSON, nullable=False, server_default="{}")
    op.add_column("build_details", order)
    _make_outbox()
    _make_recipes()
    op.create_table(
        "tokens",
        sa.Column("token_id", sa.String(16), primary_key=True),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False, unique=True),
        sa.Column("scope", sa.String(16), nullable=False),
        sa.Column("created", sa.DateTime, nullable=False),
        sa.Column("expires", sa.DateTime),
        sa.Column("revoked", sa.DateTime),
        sa.Column("last_used", sa.DateTime),
    )


def _make_outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("receiver", sa.String(255), nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("payload", sa.JSON, nullable=False),
        sa.Column("build_id", sa.String(64)),
        sa.Column("created", sa.DateTime, nullable=False),
        sa.Column("due", sa.DateTime, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("ended", sa.DateTime),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("last_error", sa.Text, nullable=False),
        sa.UniqueConstraint("receiver", "key", name="outbox_once"),
        sqlite_autoincrement=True,
    )
    op.create_index("outbox_by_receiver", "outbox", ["state", "receiver", "seq"])
    op.create_index("outbox_by_kind", "outbox", ["state", "receiver", "kind", "seq"])
    op.create_index("outbox_by_end", "outbox", ["ended"])


def _make_recipes() -> None:
    op.create_table(
        "recipes",
        sa.Column("recipe", sa.String(128), primary_key=True),
        sa.Column("built", sa.Integer, nullable=False),
        sa.Column("restored", sa.Integer, nullable=False),
        sa.Column("times", sa.JSON, nullable=False),
        sa.Column("last_built", sa.DateTime),
        sa.Column("last_used", sa.DateTime, nullable=False),
        sa.Column("build_id", sa.String(64), nullable=False),
    )
    op.create_index("recipes_by_use", "recipes", ["last_used"])
    op.create_index("recipes_by_build", "recipes", ["build_id"])


def downgrade() -> None:
    """Drop them."""
    op.drop_table("recipes")
    op.drop_table("tokens")
    op.drop_table("outbox")
    op.drop_column("build_details", "order")
    op.drop_column("builds", "work")
    op.drop_column("builds", "shared_run")
    op.drop_column("builds", "warm_from")
    op.drop_column("builds", "trust")
    op.drop_column("builds", "cancel_reason")
    op.drop_column("builds", "is_resumable")
