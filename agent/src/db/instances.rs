//! Records of instances.

use std::collections::HashMap;

use crn_api_types::{Event, EventKind, Owner, Subject, VolumeState};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{
    About, Db, DbError, Scope, checkpoint, events, json, now, rfc3339,
    row::{Columns, all, first},
    scope::only,
    totals::totals,
    volumes,
};
use crate::{
    capacity::{self, Capacity, Totals},
    ids::{InstanceId, Name},
    life::{Desired, Intent, Phase, Settled},
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
    /// When it was launched.
    #[serde(with = "time::serde::rfc3339")]
    pub launched_at: OffsetDateTime,
    /// What was last seen of its guest.
    #[serde(default)]
    pub guest: GuestHealth,
}

/// What was seen of a guest since it booted: an agent that is started later knows no less.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestHealth {
    /// Its SSH server has answered.
    pub answered: bool,
    /// It had answered, and does not since then.
    #[serde(with = "time::serde::rfc3339::option")]
    pub silent_since: Option<OffsetDateTime>,
    /// Its kernel panicked.
    #[serde(with = "time::serde::rfc3339::option")]
    pub panicked_since: Option<OffsetDateTime>,
}

/// What a guest's machine is made of. It stays through upgrades of QEMU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hardware {
    /// QEMU's machine type with its version: `pc-q35-10.0`.
    pub machine: String,
    /// The CPU model.
    pub cpu: String,
}

/// An instance as recorded.
#[derive(Debug, Clone)]
pub struct InstanceRow {
    /// Identity.
    pub id: InstanceId,
    /// Whose it is.
    pub owner: Owner,
    /// Name, unique among its owner's.
    pub name: Name,
    /// Tap number, user and IPv4 index.
    pub slot: u32,
    /// What was asked for.
    pub spec: InstanceSpec,
    /// The guest's IPv6 network.
    pub network: net::GuestNet,
    /// Digest of the base image, once resolved.
    pub image: Option<String>,
    /// Known since its first start.
    pub hardware: Option<Hardware>,
    /// What is wanted.
    pub intent: Intent,
    /// Where it is.
    pub phase: Phase,
    /// The QEMU that was launched last.
    pub process: Option<ProcessRow>,
    /// Restarts in a row.
    pub restarts: u32,
    /// When it was recorded.
    pub created_at: OffsetDateTime,
    /// When its phase changed last.
    pub changed_at: OffsetDateTime,
}

/// What a new instance needs besides the checked request.
pub struct NewInstance {
    /// Whose it is to be.
    pub owner: Owner,
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

const COLUMNS: &str = "id, owner, name, slot, spec, network, image, machine, cpu, desired, restart, \
                       forced, phase, process, restarts, created_at, changed_at";

fn decode(row: &Row<'_>) -> Result<InstanceRow, DbError> {
    let row = Columns::of(row, "id")?;
    Ok(InstanceRow {
        id: row.parsed("id")?,
        owner: row.parsed("owner")?,
        name: row.parsed("name")?,
        slot: row.get("slot")?,
        spec: row.json("spec")?,
        network: row.parsed("network")?,
        image: row.get("image")?,
        hardware: match (row.get("machine")?, row.get("cpu")?) {
            (Some(machine), Some(cpu)) => Some(Hardware { machine, cpu }),
            _ => None,
        },
        intent: Intent {
            desired: row.json("desired")?,
            restart: row.get("restart")?,
            force: row.get("forced")?,
        },
        phase: row.json("phase")?,
        process: row.json_option("process")?,
        restarts: row.get("restarts")?,
        created_at: row.time("created_at")?,
        changed_at: row.time("changed_at")?,
    })
}

fn get(c: &Connection, id: &InstanceId) -> Result<InstanceRow, DbError> {
    let sql = format!("SELECT {COLUMNS} FROM instances WHERE id = ?1");
    first(&mut *c.prepare_cached(&sql)?, [id.as_str()], decode)?.ok_or_else(|| DbError::NotFound {
        what: Subject::Instance,
        key: id.to_string(),
    })
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
        owner,
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
    let created = volumes::missing(&tx, &owner, &checked.volumes)?;
    let asked = Totals {
        instances: 1,
        vcpus: spec.vcpus.into(),
        memory_mib: spec.memory.0.into(),
        disk_mib: u64::from(spec.disk.0) + created,
    };
    capacity::admit(totals(&tx)?, asked, capacity)?;
    let slot = free_slot(&tx, slots)?;
    let network = free_network(&tx, &plan, &id)?;
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
        "INSERT INTO instances (id, short, owner, name, slot, origin, spec, network, desired, \
         phase, created_at, changed_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, 'local', ?6, ?7, ?8, ?9, ?10, ?10)",
        params![
            key,
            id.short(),
            owner.as_str(),
            name,
            slot,
            json("spec", key, &spec)?,
            network.to_string(),
            json("desired", key, &desired)?,
            json("phase", key, &phase)?,
            rfc3339(now())
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
        volumes::attach_or_create(&tx, volume, &owner, &id)?;
    }
    let row = get(&tx, &id)?;
    tx.commit()?;
    Ok(row)
}

/// A network of the plan that no instance has.
fn free_network(
    c: &Connection,
    plan: &net::AddressPlan,
    id: &InstanceId,
) -> Result<net::GuestNet, DbError> {
    let mut taken = c.prepare_cached("SELECT 1 FROM instances WHERE network = ?1")?;
    plan.assign(id.as_str(), |candidate| {
        // A database that cannot be read refuses to take the answer as well.
        taken.exists([candidate.to_string()]).unwrap_or(true)
    })
    .map_err(|e| DbError::Capacity(e.to_string()))
}

fn renumber(
    c: &mut Connection,
    id: &InstanceId,
    plan: &net::AddressPlan,
) -> Result<Option<net::GuestNet>, DbError> {
    let tx = c.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    if plan.prefix().is_guests(get(&tx, id)?.network.guest()) {
        return Ok(None);
    }
    let network = free_network(&tx, plan, id)?;
    tx.execute(
        "UPDATE instances SET network = ?2 WHERE id = ?1",
        params![id.as_str(), network.to_string()],
    )?;
    tx.commit()?;
    Ok(Some(network))
}

impl Db {
    /// Gives an instance whose network is not of the plan's prefix one that is; returns it.
    ///
    /// # Errors
    /// Those of the database; no network is left.
    pub async fn renumber(
        &self,
        id: &InstanceId,
        plan: net::AddressPlan,
    ) -> Result<Option<net::GuestNet>, DbError> {
        let id = id.clone();
        self.call(move |c| renumber(c, &id, &plan)).await
    }

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

    /// The instances in `scope`, oldest first.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn instances_in(&self, scope: Scope) -> Result<Vec<InstanceRow>, DbError> {
        self.call(move |c| {
            let sql = format!(
                "SELECT {COLUMNS} FROM instances WHERE {} ORDER BY created_at, id",
                scope.condition()
            );
            all(&mut *c.prepare_cached(&sql)?, [scope.only_of()], decode)
        })
        .await
    }

    /// All instances, oldest first.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn instances(&self) -> Result<Vec<InstanceRow>, DbError> {
        self.instances_in(Scope::Node).await
    }

    /// The one instance that `reference` names in `scope`, by its name or its id.
    ///
    /// # Errors
    /// [`DbError::NotFound`], or [`DbError::Conflict`] when several match.
    pub async fn find_instance(
        &self,
        scope: Scope,
        reference: &str,
    ) -> Result<InstanceRow, DbError> {
        let reference = reference.to_owned();
        self.call(move |c| {
            let sql = format!(
                "SELECT {COLUMNS} FROM instances WHERE (owner = ?1 AND name = ?2) \
                 OR (id GLOB ?3 AND owner = coalesce(?4, owner)) LIMIT 2"
            );
            let pattern = scope.id_pattern(&reference);
            let params = params![scope.names_of(), reference, pattern, scope.only_of()];
            only(
                Subject::Instance,
                &reference,
                all(&mut *c.prepare_cached(&sql)?, params, decode)?,
            )
        })
        .await
    }

    /// Changes what is wanted, by a function of the record as it is: read, decided and
    /// written in one job, so that nothing that is settled meanwhile comes back. A
    /// deletion is never taken back.
    ///
    /// # Errors
    /// [`DbError::NotFound`]; [`DbError::Conflict`] when it is being deleted.
    pub async fn update_intent(
        &self,
        id: &InstanceId,
        decide: impl FnOnce(&InstanceRow) -> Intent + Send + 'static,
    ) -> Result<InstanceRow, DbError> {
        let id = id.clone();
        self.call(move |c| {
            let mut row = get(c, &id)?;
            let intent = decide(&row);
            if row.intent.desired == Desired::Deleted && intent.desired != Desired::Deleted {
                return Err(DbError::Conflict(format!(
                    "instance {} is being deleted",
                    row.name
                )));
            }
            let desired = json("desired", id.as_str(), &intent.desired)?;
            c.prepare_cached(
                "UPDATE instances SET desired = ?2, restart = ?3, forced = ?4 WHERE id = ?1",
            )?
            .execute(params![id.as_str(), desired, intent.restart, intent.force])?;
            row.intent = intent;
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
    ) -> Result<Event, DbError> {
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
                rfc3339(now()),
                settled.guest_off,
                json("desired", key, &Desired::Running)?,
                json("desired", key, &Desired::Stopped)?,
            ])?;
            let data = serde_json::to_value(&phase).unwrap_or_default();
            let event = events::insert(&tx, &About::Instance(id.clone()), EventKind::Phase, data)?;
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

    /// Records what the machine is made of, unless that is known; gives what is known.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn record_hardware(
        &self,
        id: &InstanceId,
        hardware: Hardware,
    ) -> Result<Hardware, DbError> {
        let id = id.clone();
        self.call(move |c| {
            let Hardware { machine, cpu } = &hardware;
            c.prepare_cached(
                "UPDATE instances SET machine = ?2, cpu = ?3 WHERE id = ?1 AND machine IS NULL",
            )?
            .execute([id.as_str(), machine, cpu])?;
            Ok(get(c, &id)?.hardware.unwrap_or(hardware))
        })
        .await
    }

    /// Records what was seen of the guest of a QEMU that is on record.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn set_guest_health(
        &self,
        id: &InstanceId,
        health: GuestHealth,
    ) -> Result<(), DbError> {
        let id = id.clone();
        self.call(move |c| {
            let health = json("guest", id.as_str(), &health)?;
            c.prepare_cached(
                "UPDATE instances SET process = json_set(process, '$.guest', json(?2))
                 WHERE id = ?1 AND process IS NOT NULL",
            )?
            .execute([id.as_str(), &health])?;
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
                params![id.as_str(), VolumeState::Creating.as_str()],
            )?;
            volumes::detach(&tx, "instance", id.as_str())?;
            tx.execute("DELETE FROM instances WHERE id = ?1", [id.as_str()])?;
            tx.commit()?;
            // Its cloud-init may have held secrets. On a full disk they stay in the log for
            // now; the record is gone all the same.
            if let Err(e) = checkpoint(c) {
                tracing::warn!("the database's log keeps what was deleted for now: {e}");
            }
            Ok(())
        })
        .await
    }

    /// How many instances are layered over each image, by its digest.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn image_users(&self) -> Result<HashMap<String, u64>, DbError> {
        self.call(|c| {
            let sql =
                "SELECT image, count(*) FROM instances WHERE image IS NOT NULL GROUP BY image";
            let mut statement = c.prepare_cached(sql)?;
            let rows = statement.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// The name of an instance that needs an image: one that is layered over it, or one
    /// that is still being prepared and was asked for by one of these names.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn image_user(
        &self,
        digest: &str,
        names: &[String],
    ) -> Result<Option<String>, DbError> {
        let digest = digest.to_owned();
        let mut named = names.to_vec();
        named.push(format!("sha256:{digest}"));
        self.call(move |c| {
            let sql = "SELECT name FROM instances WHERE image = ?1 OR (image IS NULL \
                       AND spec ->> 'image' IN (SELECT value FROM json_each(?2))) LIMIT 1";
            let named = json("image", &digest, &named)?;
            let mut statement = c.prepare_cached(sql)?;
            Ok(statement
                .query_row([&digest, &named], |r| r.get(0))
                .optional()?)
        })
        .await
    }
}
