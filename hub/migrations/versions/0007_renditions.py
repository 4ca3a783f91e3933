"""Photos in several qualities, and how fast what a kiosk sends arrives."""

import sqlalchemy as sa
from alembic import op

revision = "0007_renditions"
down_revision = "0006_turns"


def upgrade() -> None:
    for table, column in (
        ("case_file", sa.Column("of", sa.String(64), nullable=False, server_default="")),
        ("case_file", sa.Column("rendition", sa.String(20), nullable=False, server_default="")),
        ("case_file", sa.Column("original_bytes", sa.BigInteger(), nullable=False, server_default="0")),
        ("case_file", sa.Column("original_asked_at", sa.BigInteger(), nullable=False, server_default="0")),
        ("case_file", sa.Column("original_gone_at", sa.BigInteger(), nullable=False, server_default="0")),
        ("content", sa.Column("damage", sa.String(20), nullable=False, server_default="")),
        ("kiosk", sa.Column("arrival_bps", sa.BigInteger(), nullable=False, server_default="0")),
        ("kiosk", sa.Column("arrival_began_at", sa.BigInteger(), nullable=False, server_default="0")),
        ("kiosk", sa.Column("arrived_at", sa.BigInteger(), nullable=False, server_default="0")),
    ):
        op.add_column(table, column)
