"""Why tasks of a build ran again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add `build_details.rebuilt`."""
    column = sa.Column("rebuilt", sa.JSON, nullable=False, server_default="[]")
    op.add_column("build_details", column)


def downgrade() -> None:
    """Drop it."""
    op.drop_column("build_details", "rebuilt")
