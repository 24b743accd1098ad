"""The SQLite file of the service: its tables, and how it is known again."""

from __future__ import annotations

from supir.errors import NoRoomError, ServiceError, StorageError
from supir.files.database import Kind

_SCHEMA = """
CREATE TABLE job (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, client TEXT NOT NULL, name TEXT NOT NULL,
    options TEXT NOT NULL, suffix TEXT NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL,
    digest TEXT NOT NULL, idempotency_key TEXT,
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled', 'expired')),
    created REAL NOT NULL, started REAL, finished REAL, tries INTEGER NOT NULL DEFAULT 0, error TEXT, sha256 TEXT,
    until TEXT NOT NULL CHECK (until IN ('result', 'preview')), source TEXT NOT NULL,
    caption TEXT, captioner TEXT, described REAL, preset TEXT,
    audit TEXT, audited TEXT, crop TEXT,
    UNIQUE (client, idempotency_key)) STRICT;
CREATE INDEX by_state ON job (state, number);
CREATE INDEX by_client ON job (client, number);
CREATE INDEX by_end ON job (client, finished);
CREATE INDEX by_description ON job (client, described);
"""

SERVICE = Kind(
    name="a service",
    application=0x73757073,  # "sups"
    version=6,
    schema=_SCHEMA,
    upgrades={
        3: "ALTER TABLE job ADD COLUMN preset TEXT",
        4: "ALTER TABLE job ADD COLUMN audit TEXT;\nALTER TABLE job ADD COLUMN audited TEXT",
        5: "ALTER TABLE job ADD COLUMN crop TEXT",
    },
    error=ServiceError,
    unwritable=StorageError,
    full=NoRoomError,
    patience=2.0,  # not long: people wait, and what is refused is tried again
)
