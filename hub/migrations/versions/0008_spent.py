"""What a kiosk on a metered link says that it has spent, in all and on a consult."""

import sqlalchemy as sa
from alembic import op

revision = "0008_spent"
down_revision = "0007_renditions"


def upgrade() -> None:
    for table, column in (
        ("kiosk", sa.Column("spent", sa.JSON(), nullable=False, server_default="{}")),
        ("consult", sa.Column("link_bytes", sa.BigInteger(), nullable=False, server_default="0")),
        ("consult", sa.Column("link_cost", sa.Double(), nullable=False, server_default="0")),
        ("consult", sa.Column("link_currency", sa.String(8), nullable=False, server_default="")),
    ):
        op.add_column(table, column)
