"""Kiosks' keys and certificates; invitations that can be withdrawn, and approvals."""

import sqlalchemy as sa
from alembic import op

revision = "0003_identities"
down_revision = "0002_audit"


def upgrade() -> None:
    with op.batch_alter_table("kiosk") as kiosk:
        kiosk.add_column(sa.Column("sign_key", sa.LargeBinary(), nullable=False, server_default=sa.text("''")))
        kiosk.add_column(sa.Column("seal_key", sa.LargeBinary(), nullable=False, server_default=sa.text("''")))
    with op.batch_alter_table("invitation") as invitation:
        invitation.add_column(sa.Column("made_at", sa.BigInteger(), nullable=False, server_default="0"))
        invitation.add_column(sa.Column("withdrawn_at", sa.BigInteger(), nullable=False, server_default="0"))
        invitation.add_column(sa.Column("key_hash", sa.String(length=64), nullable=False, server_default=""))
        invitation.add_column(sa.Column("replaces", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_table(
        "certificate",
        sa.Column("serial", sa.String(length=40), nullable=False),
        sa.Column("kiosk_id", sa.String(length=32), nullable=False),
        sa.Column("key_hash", sa.String(length=64), nullable=False),
        sa.Column("pem", sa.Text(), nullable=False),
        sa.Column("issued_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=False),
        sa.Column("cut_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["kiosk_id"], ["kiosk.id"]),
        sa.PrimaryKeyConstraint("serial"),
    )
    op.create_index("ix_certificate_kiosk_id", "certificate", ["kiosk_id"])
    op.create_index("ix_certificate_key_hash", "certificate", ["key_hash"])
    op.create_table(
        "approval",
        sa.Column("key_hash", sa.String(length=64), nullable=False),
        sa.Column("kiosk_id", sa.String(length=32), nullable=False),
        sa.Column("why", sa.String(length=20), nullable=False),
        sa.Column("asked_at", sa.BigInteger(), nullable=False),
        sa.Column("approved_at", sa.BigInteger(), nullable=False),
        sa.Column("approved_by", sa.String(length=100), nullable=False),
        sa.ForeignKeyConstraint(["kiosk_id"], ["kiosk.id"]),
        sa.PrimaryKeyConstraint("key_hash"),
    )
    op.create_index("ix_approval_kiosk_id", "approval", ["kiosk_id"])
