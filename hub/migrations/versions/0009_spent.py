"""What a kiosk on a metered link says that it has spent."""

import sqlalchemy as sa
from alembic import op

revision = "0009_spent"
down_revision = "0007_renditions"


def upgrade() -> None:
    op.add_column("kiosk", sa.Column("spent", sa.JSON(), nullable=False, server_default="{}"))
