//! Records of instances.

use std::{collections::HashSet, path::PathBuf};

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use super::{
    Db, DbError, EventRow, VolumeState, events, json, now, stored, totals::totals, volumes,
};
use crate::{
    capacity::{self, Capacity, Totals},
    ids::{InstanceId, Name},
    life::{Desired, Phase, Settled, Wish},
    spec::{Checked, InstanceSpec},
};

/// The QEMU that was launched last for an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRow {
    /// Process id.
    pub pid: i32,
    /// Start time in clock ticks since boot (proc(5), field 22 of stat): with
    /// the pid it names one process of this boot.
    pub start_ticks: u64,
    /// The boot it belongs to (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
    /// The number that the tap's descriptor has inside QEMU.
    pub tap_fd: i32,
    /// The accelerator it was started with.
    pub accel: String,
    /// When it was launched, RFC 3339.
    pub launched_at: String,
}

/// An instance as recorded.
#[derive(Debug, Clone)]
pub struct InstanceRow {
    /// Identity.
    pub id: InstanceId,
    /// Name.
    pub name: Name,
    /// Tap number, user and IPv4 index.
    pub slot: u32,
    /// What was asked for.
    pub spec: InstanceSpec,
    /// The guest's IPv6 network.
    pub network: net::GuestNet,
    /// Digest of the base image, once resolved.
    pub image: Option<String>,
    /// What is wanted.
    pub wish: Wish,
    /// Where it is.
    pub phase: Phase,
    /// The QEMU that was launched last.
    pub process: Option<ProcessRow>,
    /// Restarts in a row.
    pub restarts: u32,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339.
    pub changed_at: String,
}

impl InstanceRow {
    /// Directory of the instance's disks, below the state directory.
    #[must_use]
    pub fn disk_dir(&self) -> PathBuf {
        PathBuf::from("instances").join(self.id.as_str())
    }
}

/// What a new instance needs besides the checked request.
pub struct NewInstance {
    /// The checked request.
    pub checked: Checked,
    /// Its identity.
    pub id: InstanceId,
    /// The node's IPv6 prefix, to find it a network in.
    pub plan: net::AddressPlan,
    /// What the node has.
    pub capacity: Capacity,
    /// How many slots there are.
    pub slots: u32,
}

const COLUMNS: &str = "id, name, slot, spec, network, image, desired, restart, forced, phase, \
                       process, restarts, created_at, changed_at";

type Raw = (
    String,
    String,
    u32,
    String,
    String,
    Option<String>,
    String,
    bool,
    bool,
    String,
    Option<String>,
    u32,
    String,
    String,
);

fn raw(row: &Row<'_>) -> rusqlite::Result<Raw> {
    Ok((
        row.get(0)?,
        row.get(1)?,
        row.get(2)?,
        row.get(3)?,
        row.get(4)?,
        row.get(5)?,
        row.get(6)?,
        row.get(7)?,
        row.get(8)?,
        row.get(9)?,
        row.get(10)?,
        row.get(11)?,
        row.get(12)?,
        row.get(13)?,
    ))
}

fn decode(r: Raw) -> Result<InstanceRow, DbError> {
    let key = r.0;
    let bad = |what: &'static str, message: String| DbError::Stored {
        what,
        key: key.clone(),
        message,
    };
    Ok(InstanceRow {
        id: key
            .parse()
            .map_err(|e: crate::ids::IdError| bad("id", e.to_string()))?,
        name: r
            .1
            .parse()
            .map_err(|e: crate::ids::IdError| bad("name", e.to_string()))?,
        slot: r.2,
        spec: stored("spec", &key, &r.3)?,
        network: r
            .4
            .parse()
            .map_err(|e: net::Error| bad("network", e.to_string()))?,
        image: r.5,
        wish: Wish {
            desired: stored("desired", &key, &r.6)?,
            restart: r.7,
            force: r.8,
        },
        phase: stored("phase", &key, &r.9)?,
        process: r.10.map(|p| stored("process", &key, &p)).transpose()?,
        restarts: r.11,
        created_at: r.12,
        changed_at: r.13,
    })
}

fn get(c: &Connection, id: &InstanceId) -> Result<InstanceRow, DbError> {
    let sql = format!("SELECT {COLUMNS} FROM instances WHERE id = ?1");
    let row = c
        .prepare_cached(&sql)?
        .query_row([id.as_str()], raw)
        .optional()?;
    decode(row.ok_or_else(|| DbError::NotFound {
        what: "instance",
        key: id.to_string(),
    })?)
}

fn free_slot(c: &Connection, slots: u32) -> Result<u32, DbError> {
    // The lowest number that no instance has, found through the index.
    let sql = "SELECT CASE WHEN NOT EXISTS (SELECT 1 FROM instances WHERE slot = 0) THEN 0 ELSE \
               (SELECT min(a.slot) + 1 FROM instances a WHERE NOT EXISTS \
               (SELECT 1 FROM instances b WHERE b.slot = a.slot + 1)) END";
    let slot: u32 = c.prepare_cached(sql)?.query_row([], |r| r.get(0))?;
    if slot < slots {
        Ok(slot)
    } else {
        Err(DbError::Capacity(format!(
            "all {slots} slots for instances are taken"
        )))
    }
}

fn is_taken(e: &rusqlite::Error, column: &str) -> bool {
    matches!(e, rusqlite::Error::SqliteFailure(f, Some(m))
        if f.code == rusqlite::ErrorCode::ConstraintViolation && m.contains(column))
}

fn insert(c: &mut Connection, new: NewInstance) -> Result<InstanceRow, DbError> {
    let tx = c.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let NewInstance {
        checked,
        id,
        plan,
        capacity,
        slots,
    } = new;
    let name = checked
        .name
        .map_or_else(|| id.short().to_owned(), |n| n.to_string());
    let mut spec = checked.spec;
    if spec.hostname.is_empty() {
        spec.hostname = id.hostname();
    }
    let created = volumes::missing(&tx, &checked.volumes)?;
    let asked = Totals {
        instances: 1,
        vcpus: spec.vcpus.into(),
        memory_mib: spec.memory.0.into(),
        disk_mib: u64::from(spec.disk.0) + created,
    };
    capacity::admit(totals(&tx)?, asked, capacity).map_err(|e| DbError::Capacity(e.to_string()))?;
    let slot = free_slot(&tx, slots)?;
    let network = {
        let mut taken = tx.prepare_cached("SELECT 1 FROM instances WHERE network = ?1")?;
        plan.assign(id.as_str(), |candidate| {
            // A database that cannot be read refuses the insertion below as well.
            taken.exists([candidate.to_string()]).unwrap_or(true)
        })
        .map_err(|e| DbError::Capacity(e.to_string()))?
    };
    let desired = if checked.start {
        Desired::Running
    } else {
        Desired::Stopped
    };
    let phase = Phase::Preparing {
        step: crate::life::PrepareStep::Image,
    };
    let key = id.as_str();
    tx.execute(
        "INSERT INTO instances (id, short, name, slot, origin, spec, network, desired, phase, \
         created_at, changed_at) VALUES (?1, ?2, ?3, ?4, 'local', ?5, ?6, ?7, ?8, ?9, ?9)",
        params![
            key,
            id.short(),
            name,
            slot,
            json("spec", key, &spec)?,
            network.to_string(),
            json("desired", key, &desired)?,
            json("phase", key, &phase)?,
            now()
        ],
    )
    .map_err(|e| {
        if is_taken(&e, "instances.name") {
            DbError::NameTaken(name)
        } else {
            e.into()
        }
    })?;
    if let Some(text) = &checked.cloud_init {
        let sql = "INSERT INTO user_data (instance, text) VALUES (?1, ?2)";
        tx.execute(sql, [key, text])?;
    }
    for volume in &checked.volumes {
        volumes::attach_or_create(&tx, volume, &id)?;
    }
    let row = get(&tx, &id)?;
    tx.commit()?;
    Ok(row)
}

impl Db {
    /// Admits a new instance: name, slot, network, capacity and volumes in one
    /// transaction. Nothing changes on an error.
    ///
    /// # Errors
    /// A taken name, a full node, a volume in use.
    pub async fn insert_instance(&self, new: NewInstance) -> Result<InstanceRow, DbError> {
        self.call(|c| insert(c, new)).await
    }

    /// One instance.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn instance(&self, id: &InstanceId) -> Result<InstanceRow, DbError> {
        let id = id.clone();
        self.call(move |c| get(c, &id)).await
    }

    /// The user's cloud-init.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn user_data(&self, id: &InstanceId) -> Result<Option<String>, DbError> {
        let id = id.clone();
        self.call(move |c| {
            let sql = "SELECT text FROM user_data WHERE instance = ?1";
            let mut statement = c.prepare_cached(sql)?;
            Ok(statement
                .query_row([id.as_str()], |r| r.get(0))
                .optional()?)
        })
        .await
    }

    /// All instances, oldest first.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn instances(&self) -> Result<Vec<InstanceRow>, DbError> {
        self.call(|c| {
            let sql = format!("SELECT {COLUMNS} FROM instances ORDER BY created_at, id");
            let mut statement = c.prepare_cached(&sql)?;
            let rows = statement
                .query_map([], raw)?
                .collect::<Result<Vec<_>, _>>()?;
            rows.into_iter().map(decode).collect()
        })
        .await
    }

    /// Finds an instance by its name, its id, or the first digits (6 or more) of its id.
    ///
    /// # Errors
    /// [`DbError::NotFound`], or [`DbError::Conflict`] when several match.
    pub async fn find_instance(&self, reference: &str) -> Result<InstanceId, DbError> {
        let reference = reference.to_owned();
        self.call(move |c| {
            let hex = reference.len() >= 6 && reference.bytes().all(|b| b.is_ascii_hexdigit());
            let pattern = if hex {
                format!("{reference}*")
            } else {
                String::new()
            };
            let sql = "SELECT id FROM instances WHERE name = ?1 OR id GLOB ?2 \
                       ORDER BY name = ?1 DESC LIMIT 2";
            let mut statement = c.prepare_cached(sql)?;
            let found = statement
                .query_map([&reference, &pattern], |r| r.get::<_, String>(0))?
                .collect::<Result<Vec<_>, _>>()?;
            let by_name = c
                .prepare_cached("SELECT id FROM instances WHERE name = ?1")?
                .query_row([&reference], |r| r.get::<_, String>(0))
                .optional()?;
            let id = match (by_name, found.as_slice()) {
                (Some(id), _) => id,
                (None, [id]) => id.clone(),
                (None, []) => {
                    let key = crate::ids::clip(&reference);
                    return Err(DbError::NotFound {
                        what: "instance",
                        key,
                    });
                }
                (None, _) => {
                    return Err(DbError::Conflict(format!(
                        "several instances begin with {reference}"
                    )));
                }
            };
            id.parse()
                .map_err(|e: crate::ids::IdError| DbError::Stored {
                    what: "id",
                    key: id.clone(),
                    message: e.to_string(),
                })
        })
        .await
    }

    /// Changes what is wanted, by a function of the record as it is: read, decided and
    /// written in one job, so that nothing that is settled meanwhile comes back. A
    /// deletion is never taken back.
    ///
    /// # Errors
    /// [`DbError::NotFound`]; [`DbError::Conflict`] when it is being deleted.
    pub async fn update_wish(
        &self,
        id: &InstanceId,
        decide: impl FnOnce(&InstanceRow) -> Wish + Send + 'static,
    ) -> Result<InstanceRow, DbError> {
        let id = id.clone();
        self.call(move |c| {
            let mut row = get(c, &id)?;
            let wish = decide(&row);
            if row.wish.desired == Desired::Deleted && wish.desired != Desired::Deleted {
                return Err(DbError::Conflict(format!(
                    "instance {} is being deleted",
                    row.name
                )));
            }
            let desired = json("desired", id.as_str(), &wish.desired)?;
            c.prepare_cached(
                "UPDATE instances SET desired = ?2, restart = ?3, forced = ?4 WHERE id = ?1",
            )?
            .execute(params![id.as_str(), desired, wish.restart, wish.force])?;
            row.wish = wish;
            Ok(row)
        })
        .await
    }

    /// Records a phase, and with it what the transition settled; the event that
    /// tells of it is recorded in the same transaction.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn set_phase(
        &self,
        id: &InstanceId,
        phase: &Phase,
        settled: Settled,
        restarts: u32,
    ) -> Result<EventRow, DbError> {
        let (id, phase) = (id.clone(), phase.clone());
        self.call(move |c| {
            let key = id.as_str();
            let tx = c.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            tx.prepare_cached(
                "UPDATE instances SET phase = ?2, restart = restart AND NOT ?3, \
                 forced = forced AND NOT ?4, restarts = ?5, changed_at = ?6, \
                 desired = CASE WHEN ?7 AND desired = ?8 THEN ?9 ELSE desired END WHERE id = ?1",
            )?
            .execute(params![
                key,
                json("phase", key, &phase)?,
                settled.restart,
                settled.force,
                restarts,
                now(),
                settled.guest_off,
                json("desired", key, &Desired::Running)?,
                json("desired", key, &Desired::Stopped)?,
            ])?;
            let data = serde_json::to_value(&phase).unwrap_or_default();
            let event = events::insert(&tx, Some(key.to_owned()), "phase", data)?;
            tx.commit()?;
            Ok(event)
        })
        .await
    }

    /// Records that the instance has run well: its next restart is its first again.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn reset_restarts(&self, id: &InstanceId) -> Result<(), DbError> {
        let id = id.clone();
        self.call(move |c| {
            c.prepare_cached("UPDATE instances SET restarts = 0 WHERE id = ?1")?
                .execute([id.as_str()])?;
            Ok(())
        })
        .await
    }

    /// Records the base image's digest.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn set_image(&self, id: &InstanceId, digest: &str) -> Result<(), DbError> {
        let (id, digest) = (id.clone(), digest.to_owned());
        self.call(move |c| {
            c.prepare_cached("UPDATE instances SET image = ?2 WHERE id = ?1")?
                .execute([id.as_str(), &digest])?;
            Ok(())
        })
        .await
    }

    /// Records the QEMU that was launched, or that there is none.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn set_process(
        &self,
        id: &InstanceId,
        process: Option<ProcessRow>,
    ) -> Result<(), DbError> {
        let id = id.clone();
        self.call(move |c| {
            let text = process
                .map(|p| json("process", id.as_str(), &p))
                .transpose()?;
            c.prepare_cached("UPDATE instances SET process = ?2 WHERE id = ?1")?
                .execute(params![id.as_str(), text])?;
            Ok(())
        })
        .await
    }

    /// Replaces the specification (ports change while an instance lives).
    ///
    /// # Errors
    /// Those of the database.
    pub async fn set_spec(&self, id: &InstanceId, spec: &InstanceSpec) -> Result<(), DbError> {
        let (id, spec) = (id.clone(), spec.clone());
        self.call(move |c| {
            let text = json("spec", id.as_str(), &spec)?;
            c.prepare_cached("UPDATE instances SET spec = ?2 WHERE id = ?1")?
                .execute([id.as_str(), &text])?;
            Ok(())
        })
        .await
    }

    /// Removes the record; its volumes are detached and kept, those that never
    /// came to be are forgotten.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn remove_instance(&self, id: &InstanceId) -> Result<(), DbError> {
        let id = id.clone();
        self.call(move |c| {
            let tx = c.transaction()?;
            tx.execute(
                "DELETE FROM volumes WHERE instance = ?1 AND state = ?2",
                params![id.as_str(), VolumeState::Creating.word()],
            )?;
            volumes::detach(&tx, "instance", id.as_str())?;
            tx.execute("DELETE FROM instances WHERE id = ?1", [id.as_str()])?;
            tx.commit()?;
            Ok(())
        })
        .await
    }

    /// Digests of base images that instances are layered over.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn images_in_use(&self) -> Result<HashSet<String>, DbError> {
        self.call(|c| {
            let sql = "SELECT DISTINCT image FROM instances WHERE image IS NOT NULL";
            let mut statement = c.prepare_cached(sql)?;
            let rows = statement
                .query_map([], |r| r.get(0))?
                .collect::<Result<_, _>>()?;
            Ok(rows)
        })
        .await
    }
}
