//! The schema, version by version. Released versions never change.

use rusqlite::{Connection, Transaction};
use rusqlite_migration::{HookResult, M, Migrations};

use super::DbError;

const V1: &str = "
CREATE TABLE instances (
    id         TEXT PRIMARY KEY,
    short      TEXT NOT NULL UNIQUE,        -- names of run files
    name       TEXT NOT NULL UNIQUE,
    slot       INTEGER NOT NULL UNIQUE,     -- tap number, user, IPv4 /24; reused after deletion
    origin     TEXT NOT NULL,               -- 'local', later: the message's hash
    owner      TEXT,                        -- who may act on it besides the operator
    spec       TEXT NOT NULL,               -- JSON
    network    TEXT NOT NULL UNIQUE,        -- the /124
    image      TEXT,                        -- digest of the base image, once resolved
    desired    TEXT NOT NULL,
    restart    INTEGER NOT NULL DEFAULT 0,
    forced     INTEGER NOT NULL DEFAULT 0,
    phase      TEXT NOT NULL,               -- JSON
    process    TEXT,                        -- JSON: the QEMU that was launched last
    restarts   INTEGER NOT NULL DEFAULT 0,  -- in a row
    created_at TEXT NOT NULL,
    changed_at TEXT NOT NULL
) STRICT;
CREATE TABLE volumes (
    id         TEXT PRIMARY KEY,            -- its virtio serial number
    name       TEXT NOT NULL UNIQUE,
    mib        INTEGER NOT NULL,
    state      TEXT NOT NULL,               -- creating, ready, deleting
    instance   TEXT REFERENCES instances (id),
    mount      TEXT,
    created_at TEXT NOT NULL
) STRICT;
CREATE INDEX volumes_by_instance ON volumes (instance);
CREATE TABLE images (
    name         TEXT PRIMARY KEY,
    digest       TEXT NOT NULL,             -- sha256 of the file, its name in the store
    format       TEXT NOT NULL,
    virtual_size INTEGER NOT NULL,          -- bytes
    file_size    INTEGER NOT NULL,          -- bytes
    source       TEXT NOT NULL,
    added_at     TEXT NOT NULL
) STRICT;
CREATE TABLE events (
    seq      INTEGER PRIMARY KEY AUTOINCREMENT,
    at       TEXT NOT NULL,
    instance TEXT,
    kind     TEXT NOT NULL,
    data     TEXT NOT NULL                  -- JSON
) STRICT;
";

/// The user's cloud-init, up to 256 KiB, goes out of the row that every list and
/// every comparison reads.
const V2: &str = "
CREATE TABLE user_data (
    instance TEXT PRIMARY KEY REFERENCES instances (id) ON DELETE CASCADE,
    text     TEXT NOT NULL
) STRICT;
INSERT INTO user_data SELECT id, spec ->> 'cloud_init' FROM instances
    WHERE spec ->> 'cloud_init' IS NOT NULL;
UPDATE instances SET spec = json_remove(spec, '$.cloud_init');
";

/// One text is told from another by the digest in the row.
fn digest_user_data(tx: &Transaction<'_>) -> HookResult {
    let mut texts = tx.prepare("SELECT instance, text FROM user_data")?;
    let texts = texts.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?;
    for row in texts {
        let (instance, text): (String, String) = row?;
        let digest = disk::Sha256::of(text.as_bytes()).hex();
        tx.execute(
            "UPDATE instances SET spec = json_set(spec, '$.user_data', ?2) WHERE id = ?1",
            [instance, digest],
        )?;
    }
    Ok(())
}

/// Pragmas and migrations.
pub(super) fn prepare(connection: &mut Connection) -> Result<(), DbError> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    let migrations = vec![M::up(V1), M::up_with_hook(V2, digest_user_data)];
    Migrations::new(migrations).to_latest(connection)?;
    Ok(())
}
