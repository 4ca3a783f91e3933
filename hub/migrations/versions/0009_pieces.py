"""Bytes of files on their way in, as rows of the transaction that they came with; and since when a hub lacks what it
had, once it was restored."""

import sqlalchemy as sa
from alembic import op

revision = "0009_pieces"
down_revision = "0008_spent"


def upgrade() -> None:
    op.add_column("content", sa.Column("waiting_bytes", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_table(
        "piece",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True),
        sa.Column("kiosk_id", sa.String(32), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("start", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "went_back",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=False),
        sa.Column("epoch", sa.String(16), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
    )
    op.create_index("piece_of_file", "piece", ["kiosk_id", "digest"])
