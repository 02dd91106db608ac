"""What doubts a result beside the testbed: cooldowns, reasons, runs tried again by hand, events of the campaign."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("run", sa.Column("reopened_after", sa.Integer, nullable=False, server_default="0"))
    op.add_column("attempt", sa.Column("cooldown", sa.JSON))
    # Null in rows from before: their reasons are those of the result.
    op.add_column("attempt", sa.Column("reasons", sa.JSON))
    with op.batch_alter_table("event") as event:
        event.alter_column("attempt_id", existing_type=sa.String(128), nullable=True)
        event.alter_column("run_id", existing_type=sa.String(128), nullable=True)
        event.alter_column("state_after", existing_type=sa.String(16), nullable=True)
