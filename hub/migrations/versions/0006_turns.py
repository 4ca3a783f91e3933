"""What is said in turns, until it was heard or has become a message."""

import sqlalchemy as sa
from alembic import op

revision = "0006_turns"
down_revision = "0005_refused"


def upgrade() -> None:
    op.create_table(
        "turn",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("call_id", sa.String(16), nullable=False),
        sa.Column("consult_id", sa.String(32), sa.ForeignKey("consult.id"), nullable=False),
        sa.Column("by_doctor", sa.Boolean(), nullable=False),
        sa.Column("began_at", sa.BigInteger(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.Column("end", sa.BigInteger(), nullable=False),
        sa.Column("heard_at", sa.BigInteger(), nullable=False),
        sa.Column("settled_at", sa.BigInteger(), nullable=False),
    )
    op.create_index("ix_turn_call_id", "turn", ["call_id"])
    op.create_index("turn_unsettled", "turn", ["settled_at"])
    op.create_table(
        "turn_piece",
        sa.Column("turn_id", sa.String(16), sa.ForeignKey("turn.id"), primary_key=True),
        sa.Column("part", sa.BigInteger(), primary_key=True),
        sa.Column("packets", sa.LargeBinary(), nullable=False),
        sa.Column("downlink_id", sa.String(16), nullable=False),
    )
    op.create_index("ix_turn_piece_downlink_id", "turn_piece", ["downlink_id"])
