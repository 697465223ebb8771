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

/// Every record has an owner, today's the operator; a name is unique among its owner's
/// records. SQLite changes no constraints of a table: the tables are made anew.
const V3: &str = "
CREATE TABLE instances_v3 (
    id         TEXT PRIMARY KEY,
    short      TEXT NOT NULL UNIQUE,
    owner      TEXT NOT NULL,               -- 'operator', or an address in its canonical form
    name       TEXT NOT NULL,
    slot       INTEGER NOT NULL UNIQUE,
    origin     TEXT NOT NULL,
    spec       TEXT NOT NULL,
    network    TEXT NOT NULL UNIQUE,
    image      TEXT,
    desired    TEXT NOT NULL,
    restart    INTEGER NOT NULL DEFAULT 0,
    forced     INTEGER NOT NULL DEFAULT 0,
    phase      TEXT NOT NULL,
    process    TEXT,
    restarts   INTEGER NOT NULL DEFAULT 0,
    created_at TEXT NOT NULL,
    changed_at TEXT NOT NULL,
    UNIQUE (owner, name)
) STRICT;
INSERT INTO instances_v3 SELECT id, short, 'operator', name, slot, origin, spec, network, image,
    desired, restart, forced, phase, process, restarts, created_at, changed_at FROM instances;
DROP TABLE instances;
ALTER TABLE instances_v3 RENAME TO instances;
CREATE INDEX instances_by_image ON instances (image);
CREATE TABLE volumes_v3 (
    id         TEXT PRIMARY KEY,
    owner      TEXT NOT NULL,
    name       TEXT NOT NULL,
    mib        INTEGER NOT NULL,
    state      TEXT NOT NULL,               -- creating, ready, detaching, deleting
    instance   TEXT REFERENCES instances (id),
    mount      TEXT,
    created_at TEXT NOT NULL,
    UNIQUE (owner, name)
) STRICT;
INSERT INTO volumes_v3
    SELECT id, 'operator', name, mib, state, instance, mount, created_at FROM volumes;
DROP TABLE volumes;
ALTER TABLE volumes_v3 RENAME TO volumes;
CREATE INDEX volumes_by_instance ON volumes (instance);
ALTER TABLE events ADD COLUMN owner TEXT NOT NULL DEFAULT 'operator';
CREATE INDEX events_by_owner ON events (owner, seq);
CREATE INDEX events_by_instance ON events (instance, seq);
";

/// Words of a phase are spelled with hyphens, in records as elsewhere.
fn hyphenate_phases(tx: &Transaction<'_>) -> HookResult {
    for (table, key, column, which) in [
        ("instances", "id", "phase", "true"),
        ("events", "seq", "data", "kind = 'phase'"),
    ] {
        let select = format!("SELECT CAST({key} AS TEXT), {column} FROM {table} WHERE {which}");
        let mut statement = tx.prepare(&select)?;
        let rows = statement.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?;
        let update = format!("UPDATE {table} SET {column} = ?2 WHERE {key} = ?1");
        for row in rows.collect::<Result<Vec<(String, String)>, _>>()? {
            let (key, text) = row;
            // What is no JSON here is named when it is read.
            if let Ok(mut phase) = serde_json::from_str(&text) {
                hyphenate(&mut phase);
                tx.execute(&update, [key, phase.to_string()])?;
            }
        }
    }
    Ok(())
}

fn hyphenate(phase: &mut serde_json::Value) {
    for key in ["phase", "step", "stage", "then", "reason"] {
        match phase.get_mut(key) {
            Some(serde_json::Value::String(word)) => *word = word.replace('_', "-"),
            Some(inner) => hyphenate(inner),
            None => {}
        }
    }
}

/// What a guest's machine is made of stays through upgrades of QEMU. Of older records it
/// is found out when their QEMU is asked, or when they are started next.
const V4: &str = "
ALTER TABLE instances ADD COLUMN machine TEXT;  -- QEMU's machine type with its version
ALTER TABLE instances ADD COLUMN cpu TEXT;      -- the CPU model; known with the machine
";

/// A volume has the file system that its guest makes on it. Until now all got ext4.
const V5: &str = "
ALTER TABLE volumes ADD COLUMN file_system TEXT NOT NULL DEFAULT 'ext4';
";

/// The first version that overwrites what it deletes.
const WITH_SECURE_DELETE: usize = 3;

fn migrations() -> Migrations<'static> {
    Migrations::new(vec![
        M::up(V1),
        M::up_with_hook(V2, digest_user_data),
        M::up_with_hook(V3, hyphenate_phases).foreign_key_check(),
        M::up(V4),
        M::up(V5),
    ])
}

/// Pragmas and migrations.
pub(super) fn prepare(connection: &mut Connection) -> Result<(), DbError> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // What is deleted may have been a secret in somebody's cloud-init.
    connection.pragma_update(None, "secure_delete", "ON")?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    let before: usize = connection.pragma_query_value(None, "user_version", |r| r.get(0))?;
    // While tables are made anew nothing refers to the old ones; checked afterwards.
    connection.pragma_update(None, "foreign_keys", "OFF")?;
    migrations().to_latest(connection)?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    if (1..WITH_SECURE_DELETE).contains(&before) {
        // What older versions deleted is still between the records.
        let cleaned = connection
            .execute_batch("VACUUM")
            .map_err(DbError::from)
            .and_then(|()| super::checkpoint(connection));
        // On a full disk the agent is needed all the more.
        if let Err(e) = cleaned {
            tracing::warn!("deleted cloud-init of older versions stays in the database: {e}");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
