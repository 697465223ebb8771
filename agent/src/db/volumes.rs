//! Records of volumes.

use crn_api_types::{FileSystem, Owner, Subject, VolumeState};
use rusqlite::{Connection, OptionalExtension, Row, params};
use time::OffsetDateTime;

use super::{
    Db, DbError, Scope, now, rfc3339,
    row::{Columns, all, first},
    scope::only,
    totals::totals,
};
use crate::{
    capacity::{self, Capacity, Totals},
    ids::{InstanceId, Name},
    spec::WantedVolume,
};

/// A volume as recorded.
#[derive(Debug, Clone)]
pub struct VolumeRow {
    /// 16 hexadecimal digits: file name, virtio serial number.
    pub id: String,
    /// Whose it is.
    pub owner: Owner,
    /// Name, unique among its owner's.
    pub name: Name,
    /// Size, MiB.
    pub mib: u64,
    /// Whether the file is there.
    pub state: VolumeState,
    /// What its guest makes on it if it has nothing on it.
    pub file_system: FileSystem,
    /// The instance that has it.
    pub instance: Option<InstanceId>,
    /// That instance's name.
    pub instance_name: Option<Name>,
    /// Where that guest mounts it.
    pub mount: Option<String>,
    /// When it was recorded.
    pub created_at: OffsetDateTime,
}

/// A volume to be recorded.
#[derive(Debug, Clone)]
pub struct NewVolume {
    /// Name.
    pub name: Name,
    /// Size, MiB.
    pub mib: u64,
    /// How its file comes to be.
    pub state: VolumeState,
    /// What its guest makes on it if it has nothing on it.
    pub file_system: FileSystem,
}

impl NewVolume {
    /// One with nothing on it.
    #[must_use]
    pub fn empty(name: &Name, mib: u64) -> Self {
        Self {
            name: name.clone(),
            mib,
            state: VolumeState::Creating,
            file_system: FileSystem::Ext4,
        }
    }
}

const SELECT: &str = "SELECT v.id AS id, v.owner AS owner, v.name AS name, v.mib AS mib, \
                      v.state AS state, v.file_system AS file_system, v.instance AS instance, i.name AS instance_name, \
                      v.mount AS mount, v.created_at AS created_at \
                      FROM volumes v LEFT JOIN instances i ON i.id = v.instance";

fn decode(row: &Row<'_>) -> Result<VolumeRow, DbError> {
    let row = Columns::of(row, "id")?;
    Ok(VolumeRow {
        id: row.get("id")?,
        owner: row.parsed("owner")?,
        name: row.parsed("name")?,
        mib: row.get("mib")?,
        state: row.parsed("state")?,
        file_system: row.parsed("file_system")?,
        instance: row.parsed_option("instance")?,
        instance_name: row.parsed_option("instance_name")?,
        mount: row.get("mount")?,
        created_at: row.time("created_at")?,
    })
}

fn by_name(c: &Connection, owner: &Owner, name: &Name) -> Result<Option<VolumeRow>, DbError> {
    let sql = format!("{SELECT} WHERE v.owner = ?1 AND v.name = ?2");
    let key = [owner.as_str(), name.as_str()];
    first(&mut *c.prepare_cached(&sql)?, key, decode)
}

fn get(c: &Connection, id: &str) -> Result<VolumeRow, DbError> {
    let sql = format!("{SELECT} WHERE v.id = ?1");
    first(&mut *c.prepare_cached(&sql)?, [id], decode)?.ok_or_else(|| DbError::NotFound {
        what: Subject::Volume,
        key: id.to_owned(),
    })
}

/// MiB of those wanted volumes that their owner does not have yet.
pub(super) fn missing(
    c: &Connection,
    owner: &Owner,
    wanted: &[WantedVolume],
) -> Result<u64, DbError> {
    let mut mib = 0;
    for volume in wanted {
        if by_name(c, owner, &volume.name)?.is_none() {
            mib += u64::from(volume.size.0);
        }
    }
    Ok(mib)
}

fn new_id() -> Result<String, DbError> {
    let mut bytes = [0u8; 8];
    getrandom::fill(&mut bytes).map_err(DbError::Entropy)?;
    Ok(hex::encode(bytes))
}

fn create(c: &Connection, owner: &Owner, new: &NewVolume) -> Result<VolumeRow, DbError> {
    if by_name(c, owner, &new.name)?.is_some() {
        return Err(DbError::NameTaken(new.name.to_string()));
    }
    let id = new_id()?;
    c.execute(
        "INSERT INTO volumes (id, owner, name, mib, state, file_system, created_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            id,
            owner.as_str(),
            new.name.as_str(),
            new.mib,
            new.state.as_str(),
            new.file_system.as_str(),
            rfc3339(now())
        ],
    )?;
    get(c, &id)
}

fn attach(
    c: &Connection,
    volume: &VolumeRow,
    to: &InstanceId,
    mount: Option<&str>,
) -> Result<(), DbError> {
    let name = &volume.name;
    if volume.state == VolumeState::Deleting {
        return Err(DbError::Conflict(format!("volume {name} is being deleted")));
    }
    if volume.state == VolumeState::Importing {
        return Err(DbError::Conflict(format!(
            "volume {name} is being imported"
        )));
    }
    let owner = c
        .prepare_cached("SELECT owner FROM instances WHERE id = ?1")?
        .query_row([to.as_str()], |r| r.get::<_, String>(0))
        .optional()?;
    if owner.as_deref() != Some(volume.owner.as_str()) {
        let message = format!("volume {name} and the instance are not the same owner's");
        return Err(DbError::Conflict(message));
    }
    if let Some(holder) = volume.instance.as_ref().filter(|holder| *holder != to) {
        let instance = volume.instance_name.as_ref();
        return Err(DbError::VolumeInUse {
            volume: name.to_string(),
            instance: instance.map_or_else(|| holder.to_string(), ToString::to_string),
        });
    }
    if volume.state == VolumeState::Detaching {
        let message = format!("volume {name} is being detached; attach it when that is done");
        return Err(DbError::Conflict(message));
    }
    c.execute(
        "UPDATE volumes SET instance = ?2, mount = ?3 WHERE id = ?1",
        params![volume.id, to.as_str(), mount],
    )?;
    Ok(())
}

/// For a new instance: takes the volume if its owner has it, else records a new one.
pub(super) fn attach_or_create(
    c: &Connection,
    wanted: &WantedVolume,
    owner: &Owner,
    to: &InstanceId,
) -> Result<(), DbError> {
    let volume = match by_name(c, owner, &wanted.name)? {
        Some(volume) => volume,
        None => {
            let new = NewVolume::empty(&wanted.name, wanted.size.0.into());
            create(c, owner, &new)?
        }
    };
    attach(c, &volume, to, wanted.mount.as_deref())
}

/// Nobody has the volumes whose `column` is `key` any more.
pub(super) fn detach(c: &Connection, column: &str, key: &str) -> Result<(), DbError> {
    let (ready, detaching) = (VolumeState::Ready.as_str(), VolumeState::Detaching.as_str());
    let sql = format!(
        "UPDATE volumes SET instance = NULL, mount = NULL,
                state = CASE state WHEN ?3 THEN ?2 ELSE state END
         WHERE {column} = ?1"
    );
    c.prepare_cached(&sql)?.execute([key, ready, detaching])?;
    Ok(())
}

fn list(c: &Connection, filter: &str, key: Option<&str>) -> Result<Vec<VolumeRow>, DbError> {
    let sql = format!("{SELECT} WHERE {filter} ORDER BY v.created_at, v.id");
    all(&mut *c.prepare_cached(&sql)?, [key], decode)
}

impl Db {
    /// Records a new volume, its file yet to be made.
    ///
    /// # Errors
    /// A name that the owner has given already, a full node.
    pub async fn insert_volume(
        &self,
        owner: &Owner,
        new: NewVolume,
        capacity: Capacity,
    ) -> Result<VolumeRow, DbError> {
        let owner = owner.clone();
        self.call(move |c| {
            let tx = c.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            let asked = Totals {
                disk_mib: new.mib,
                ..Totals::default()
            };
            capacity::admit(totals(&tx)?, asked, capacity)?;
            let row = create(&tx, &owner, &new)?;
            tx.commit()?;
            Ok(row)
        })
        .await
    }

    /// One volume by its id.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn volume(&self, id: &str) -> Result<VolumeRow, DbError> {
        let id = id.to_owned();
        self.call(move |c| get(c, &id)).await
    }

    /// The one volume that `reference` names in `scope`, by its name or its whole id.
    ///
    /// # Errors
    /// [`DbError::NotFound`], or [`DbError::Conflict`] when it is one's name and
    /// another's id.
    pub async fn find_volume(&self, scope: Scope, reference: &str) -> Result<VolumeRow, DbError> {
        let reference = reference.to_owned();
        self.call(move |c| {
            let sql = format!(
                "{SELECT} WHERE (v.owner = ?1 AND v.name = ?2) \
                 OR (v.id = ?2 AND v.owner = coalesce(?3, v.owner)) LIMIT 2"
            );
            let params = params![scope.names_of(), reference, scope.only_of()];
            only(
                Subject::Volume,
                &reference,
                all(&mut *c.prepare_cached(&sql)?, params, decode)?,
            )
        })
        .await
    }

    /// The volumes in `scope`, oldest first.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn volumes_in(&self, scope: Scope) -> Result<Vec<VolumeRow>, DbError> {
        self.call(move |c| {
            let filter = match scope {
                Scope::Node => "?1 IS NULL",
                Scope::Of(_) | Scope::None => "v.owner = ?1",
            };
            list(c, filter, scope.only_of())
        })
        .await
    }

    /// All volumes, oldest first.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn volumes(&self) -> Result<Vec<VolumeRow>, DbError> {
        self.volumes_in(Scope::Node).await
    }

    /// The volumes of one instance, in the order in which they were created.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn volumes_of(&self, id: &InstanceId) -> Result<Vec<VolumeRow>, DbError> {
        let id = id.clone();
        self.call(move |c| list(c, "v.instance = ?1", Some(id.as_str())))
            .await
    }

    /// Records that an instance of the same owner has the volume.
    ///
    /// # Errors
    /// [`DbError::VolumeInUse`], [`DbError::NotFound`], [`DbError::Conflict`].
    pub async fn attach_volume(
        &self,
        id: &str,
        to: &InstanceId,
        mount: Option<&str>,
        most: usize,
    ) -> Result<(), DbError> {
        let (id, to, mount) = (id.to_owned(), to.clone(), mount.map(str::to_owned));
        self.call(move |c| {
            let tx = c.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            attach(&tx, &get(&tx, &id)?, &to, mount.as_deref())?;
            if list(&tx, "v.instance = ?1", Some(to.as_str()))?.len() > most {
                let message = format!("an instance can have {most} volumes");
                return Err(DbError::Conflict(message));
            }
            tx.commit()?;
            Ok(())
        })
        .await
    }

    /// Records that the volume's instance is to lose it. One without a file yet
    /// stays as it is.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn begin_detach(&self, id: &str) -> Result<(), DbError> {
        let id = id.to_owned();
        self.call(move |c| {
            let (ready, detaching) = (VolumeState::Ready.as_str(), VolumeState::Detaching.as_str());
            c.execute(
                "UPDATE volumes SET state = ?3 WHERE id = ?1 AND state = ?2",
                [&id, ready, detaching],
            )?;
            Ok(())
        })
        .await
    }

    /// Records that nobody has the volume.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn detach_volume(&self, id: &str) -> Result<(), DbError> {
        let id = id.to_owned();
        self.call(move |c| detach(c, "id", &id)).await
    }

    /// Records a volume's state.
    ///
    /// # Errors
    /// [`DbError::VolumeInUse`] when it is to be deleted and an instance has it.
    pub async fn set_volume_state(&self, id: &str, state: VolumeState) -> Result<(), DbError> {
        let id = id.to_owned();
        self.call(move |c| {
            let free = "UPDATE volumes SET state = ?2 WHERE id = ?1 AND instance IS NULL";
            let any = "UPDATE volumes SET state = ?2 WHERE id = ?1";
            let sql = if state == VolumeState::Deleting {
                free
            } else {
                any
            };
            if c.execute(sql, params![id, state.as_str()])? == 0 {
                return Err(DbError::Conflict(
                    "the volume is attached to an instance".into(),
                ));
            }
            Ok(())
        })
        .await
    }

    /// Records a larger size, if the node has the room.
    ///
    /// # Errors
    /// [`DbError::Capacity`]; [`DbError::Conflict`] for a smaller size.
    pub async fn grow_volume(&self, id: &str, mib: u64, room: Capacity) -> Result<(), DbError> {
        let id = id.to_owned();
        self.call(move |c| {
            let tx = c.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            let old: u64 =
                tx.query_row("SELECT mib FROM volumes WHERE id = ?1", [&id], |r| r.get(0))?;
            let Some(more) = mib.checked_sub(old) else {
                let message = format!("the volume has {old} MiB; it can only grow");
                return Err(DbError::Conflict(message));
            };
            let asked = Totals {
                disk_mib: more,
                ..Totals::default()
            };
            capacity::admit(totals(&tx)?, asked, room)?;
            tx.execute(
                "UPDATE volumes SET mib = ?2 WHERE id = ?1",
                params![id, mib],
            )?;
            tx.commit()?;
            Ok(())
        })
        .await
    }

    /// Forgets a volume.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn remove_volume(&self, id: &str) -> Result<(), DbError> {
        let id = id.to_owned();
        self.call(move |c| {
            c.execute("DELETE FROM volumes WHERE id = ?1", [&id])?;
            Ok(())
        })
        .await
    }
}
