//! Records of volumes.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Db, DbError, now, totals::totals};
use crate::{
    capacity::{self, Capacity, Totals},
    ids::{InstanceId, Name},
    spec::WantedVolume,
};

/// Whether a volume's file is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum VolumeState {
    /// Recorded; its file may not exist yet.
    Creating,
    /// The file exists.
    Ready,
    /// Its instance is to lose it: as soon as the guest lets go, at the latest when
    /// QEMU ends.
    Detaching,
    /// The file is being removed.
    Deleting,
}

impl VolumeState {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Ready => "ready",
            Self::Detaching => "detaching",
            Self::Deleting => "deleting",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [Self::Creating, Self::Ready, Self::Detaching, Self::Deleting]
            .into_iter()
            .find(|s| s.word() == word)
    }
}

/// A volume as recorded.
#[derive(Debug, Clone)]
pub struct VolumeRow {
    /// 16 hexadecimal digits: file name, virtio serial number.
    pub id: String,
    /// Name.
    pub name: Name,
    /// Size, MiB.
    pub mib: u64,
    /// Whether the file is there.
    pub state: VolumeState,
    /// Who has it.
    pub instance: Option<InstanceId>,
    /// Where that guest mounts it.
    pub mount: Option<String>,
    /// RFC 3339.
    pub created_at: String,
}

const COLUMNS: &str = "id, name, mib, state, instance, mount, created_at";

type Raw = (
    String,
    String,
    u64,
    String,
    Option<String>,
    Option<String>,
    String,
);

fn raw(r: &Row<'_>) -> rusqlite::Result<Raw> {
    Ok((
        r.get(0)?,
        r.get(1)?,
        r.get(2)?,
        r.get(3)?,
        r.get(4)?,
        r.get(5)?,
        r.get(6)?,
    ))
}

fn decode(r: Raw) -> Result<VolumeRow, DbError> {
    let key = r.0;
    let bad = |what: &'static str, message: String| DbError::Stored {
        what,
        key: key.clone(),
        message,
    };
    Ok(VolumeRow {
        name: r
            .1
            .parse()
            .map_err(|e: crate::ids::IdError| bad("name", e.to_string()))?,
        mib: r.2,
        state: VolumeState::parse(&r.3).ok_or_else(|| bad("state", r.3.clone()))?,
        instance: r
            .4
            .map(|i| i.parse())
            .transpose()
            .map_err(|e: crate::ids::IdError| bad("instance", e.to_string()))?,
        mount: r.5,
        created_at: r.6,
        id: key,
    })
}

fn by_name(c: &Connection, name: &str) -> Result<Option<VolumeRow>, DbError> {
    let sql = format!("SELECT {COLUMNS} FROM volumes WHERE name = ?1");
    c.prepare_cached(&sql)?
        .query_row([name], raw)
        .optional()?
        .map(decode)
        .transpose()
}

fn need(c: &Connection, name: &str) -> Result<VolumeRow, DbError> {
    let key = crate::ids::clip(name);
    by_name(c, name)?.ok_or(DbError::NotFound {
        what: "volume",
        key,
    })
}

/// MiB of those wanted volumes that do not exist yet.
pub(super) fn missing(c: &Connection, wanted: &[WantedVolume]) -> Result<u64, DbError> {
    let mut mib = 0;
    for volume in wanted {
        if by_name(c, volume.name.as_str())?.is_none() {
            mib += u64::from(volume.size.0);
        }
    }
    Ok(mib)
}

fn new_id() -> Result<String, DbError> {
    let mut bytes = [0u8; 8];
    getrandom::fill(&mut bytes).map_err(|e| DbError::Conflict(e.to_string()))?;
    Ok(hex::encode(bytes))
}

fn create(c: &Connection, name: &Name, mib: u64) -> Result<VolumeRow, DbError> {
    if by_name(c, name.as_str())?.is_some() {
        return Err(DbError::NameTaken(name.to_string()));
    }
    c.execute(
        "INSERT INTO volumes (id, name, mib, state, created_at) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![
            new_id()?,
            name.as_str(),
            mib,
            VolumeState::Creating.word(),
            now()
        ],
    )?;
    need(c, name.as_str())
}

fn attach(c: &Connection, name: &str, to: &InstanceId, mount: Option<&str>) -> Result<(), DbError> {
    let volume = need(c, name)?;
    if volume.state == VolumeState::Deleting {
        return Err(DbError::Conflict(format!("volume {name} is being deleted")));
    }
    if let Some(holder) = volume.instance.filter(|holder| holder != to) {
        let instance = c
            .query_row(
                "SELECT name FROM instances WHERE id = ?1",
                [holder.as_str()],
                |r| r.get(0),
            )
            .optional()?
            .unwrap_or_else(|| holder.to_string());
        return Err(DbError::VolumeInUse {
            volume: name.to_owned(),
            instance,
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

/// For a new instance: takes the volume if it exists, else records a new one.
pub(super) fn attach_or_create(
    c: &Connection,
    wanted: &WantedVolume,
    to: &InstanceId,
) -> Result<(), DbError> {
    if by_name(c, wanted.name.as_str())?.is_none() {
        create(c, &wanted.name, wanted.size.0.into())?;
    }
    attach(c, wanted.name.as_str(), to, wanted.mount.as_deref())
}

/// Nobody has the volumes whose `column` is `key` any more.
pub(super) fn detach(c: &Connection, column: &str, key: &str) -> Result<(), DbError> {
    let (ready, detaching) = (VolumeState::Ready.word(), VolumeState::Detaching.word());
    let sql = format!(
        "UPDATE volumes SET instance = NULL, mount = NULL,
                state = CASE state WHEN ?3 THEN ?2 ELSE state END
         WHERE {column} = ?1"
    );
    c.prepare_cached(&sql)?.execute([key, ready, detaching])?;
    Ok(())
}

fn list(c: &Connection, filter: &str, key: &[&str]) -> Result<Vec<VolumeRow>, DbError> {
    let sql = format!("SELECT {COLUMNS} FROM volumes {filter} ORDER BY created_at, id");
    let mut statement = c.prepare_cached(&sql)?;
    let rows = statement
        .query_map(rusqlite::params_from_iter(key), raw)?
        .collect::<Result<Vec<_>, _>>()?;
    rows.into_iter().map(decode).collect()
}

impl Db {
    /// Records a new volume, its file yet to be made.
    ///
    /// # Errors
    /// A taken name, a full node.
    pub async fn insert_volume(
        &self,
        name: &Name,
        mib: u64,
        capacity: Capacity,
    ) -> Result<VolumeRow, DbError> {
        let name = name.clone();
        self.call(move |c| {
            let tx = c.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            let asked = Totals {
                disk_mib: mib,
                ..Totals::default()
            };
            capacity::admit(totals(&tx)?, asked, capacity)
                .map_err(|e| DbError::Capacity(e.to_string()))?;
            let row = create(&tx, &name, mib)?;
            tx.commit()?;
            Ok(row)
        })
        .await
    }

    /// One volume by its name.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn volume(&self, name: &str) -> Result<VolumeRow, DbError> {
        let name = name.to_owned();
        self.call(move |c| need(c, &name)).await
    }

    /// All volumes, oldest first.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn volumes(&self) -> Result<Vec<VolumeRow>, DbError> {
        self.call(|c| list(c, "", &[])).await
    }

    /// The volumes of one instance, in the order in which they were created.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn volumes_of(&self, id: &InstanceId) -> Result<Vec<VolumeRow>, DbError> {
        let id = id.clone();
        self.call(move |c| list(c, "WHERE instance = ?1", &[id.as_str()]))
            .await
    }

    /// Records that an instance has the volume.
    ///
    /// # Errors
    /// [`DbError::VolumeInUse`], [`DbError::NotFound`].
    pub async fn attach_volume(
        &self,
        name: &str,
        to: &InstanceId,
        mount: Option<&str>,
        most: usize,
    ) -> Result<(), DbError> {
        let (name, to, mount) = (name.to_owned(), to.clone(), mount.map(str::to_owned));
        self.call(move |c| {
            let tx = c.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            attach(&tx, &name, &to, mount.as_deref())?;
            if list(&tx, "WHERE instance = ?1", &[to.as_str()])?.len() > most {
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
            let (ready, detaching) = (VolumeState::Ready.word(), VolumeState::Detaching.word());
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
            if c.execute(sql, params![id, state.word()])? == 0 {
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
            capacity::admit(totals(&tx)?, asked, room)
                .map_err(|e| DbError::Capacity(e.to_string()))?;
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
