"""What a project says of itself."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add `builds.description`."""
    column = sa.Column("description", sa.Text, nullable=False, server_default="")
    op.add_column("builds", column)


def downgrade() -> None:
    """Drop it."""
    op.drop_column("builds", "description")
