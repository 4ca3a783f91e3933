"""A technician may refuse what a kiosk waits for."""

import sqlalchemy as sa
from alembic import op

revision = "0005_refused"
down_revision = "0004_signed"


def upgrade() -> None:
    with op.batch_alter_table("approval") as approval:
        approval.add_column(sa.Column("refused_at", sa.BigInteger(), nullable=False, server_default="0"))
