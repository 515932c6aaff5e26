"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create `builds` and `build_details`."""
    op.create_table(
        "builds",
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("build_id", sa.String(64), nullable=False, unique=True),
        sa.Column("customer", sa.String(64), nullable=False),
        sa.Column("project", sa.String(128), nullable=False),
        sa.Column("targets", sa.JSON, nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("created", sa.DateTime, nullable=False),
        sa.Column("started", sa.DateTime),
        sa.Column("ended", sa.DateTime),
        sa.Column("deleted", sa.DateTime),
        sa.Column("exit_code", sa.Integer),
        sa.Column("failure_kind", sa.String(32)),
        sa.Column("failure_message", sa.Text, nullable=False),
        sa.Column("config_path", sa.Text, nullable=False),
        sa.Column("requested_by", sa.Text, nullable=False),
        sa.Column("image", sa.Text, nullable=False),
        sa.Column("stages", sa.JSON, nullable=False),
        sa.Column("sstate", sa.JSON),
        sa.Column("tasks", sa.JSON, nullable=False),
        sa.Column("workspace", sa.Text, nullable=False),
        sa.Column("owner_pid", sa.Integer),
        sqlite_autoincrement=True,
    )
    for name, column in (
        ("builds_by_state", "state"),
        ("builds_by_customer", "customer"),
        ("builds_by_project", "project"),
    ):
        op.create_index(name, "builds", [column, "seq"])
    op.create_table(
        "build_details",
        sa.Column(
            "build_id",
            sa.String(64),
            sa.ForeignKey("builds.build_id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("config_text", sa.Text, nullable=False),
        sa.Column("layer_commits", sa.JSON, nullable=False),
        sa.Column("findings", sa.JSON, nullable=False),
        sa.Column("artifacts", sa.JSON, nullable=False),
    )
