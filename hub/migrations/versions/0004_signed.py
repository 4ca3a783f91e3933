"""What signed messages need: counters, keys of files, and the order in which a kiosk did things."""

import sqlalchemy as sa
from alembic import op

from edge_agent.core import trust, wire

revision = "0004_signed"
down_revision = "0003_identities"


def upgrade() -> None:
    with op.batch_alter_table("uplink") as uplink:
        uplink.add_column(sa.Column("kiosk_boot", sa.String(length=8), nullable=False, server_default=""))
        uplink.add_column(sa.Column("kiosk_mono_ms", sa.BigInteger(), nullable=False, server_default="0"))
        uplink.add_column(sa.Column("clock_trusted", sa.Boolean(), nullable=False, server_default=sa.false()))
    with op.batch_alter_table("case_file") as case_file:
        case_file.add_column(sa.Column("key", sa.LargeBinary(), nullable=False, server_default=sa.text("''")))
        case_file.add_column(sa.Column("key_name", sa.String(length=16), nullable=False, server_default=""))
        case_file.create_index("ix_case_file_key_name", ["key_name"])
    rows = sa.table("case_file", *map(sa.column, ("consult_id", "digest", "key", "key_name")))
    database = op.get_bind()
    for consult, digest in database.execute(sa.select(rows.c.consult_id, rows.c.digest)).all():
        key = wire.new_file_key()
        database.execute(
            sa.update(rows)
            .where(rows.c.consult_id == consult, rows.c.digest == digest)
            .values(key=key, key_name=trust.name_of_key(key).hex())
        )
    op.create_table(
        "heard",
        sa.Column("kiosk_id", sa.String(length=32), nullable=False),
        sa.Column("kind", sa.BigInteger(), nullable=False),
        sa.Column("counter", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["kiosk_id"], ["kiosk.id"]),
        sa.PrimaryKeyConstraint("kiosk_id", "kind"),
    )
    op.create_table(
        "hub_process",
        sa.Column("process", sa.String(length=20), nullable=False),
        sa.Column("counter", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("process"),
    )
