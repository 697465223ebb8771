//! What happened, kept for those who were not listening.

use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Db, DbError, json, now, stored};
use crate::ids::InstanceId;

/// How many events are kept.
const KEPT: i64 = 10_000;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EventRow {
    /// Grows by one with each event; `Last-Event-ID` of the event stream.
    pub seq: i64,
    /// RFC 3339.
    pub at: String,
    /// The instance's id, if it concerns one.
    pub instance: Option<String>,
    /// A stable word.
    pub kind: String,
    /// Details.
    pub data: serde_json::Value,
}

/// Records an event within whatever transaction is open.
pub(super) fn insert(
    c: &Connection,
    instance: Option<String>,
    kind: &str,
    data: serde_json::Value,
) -> Result<EventRow, DbError> {
    let at = now();
    let text = json("data", kind, &data)?;
    c.prepare_cached("INSERT INTO events (at, instance, kind, data) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![at, instance, kind, text])?;
    let seq = c.last_insert_rowid();
    if seq % 256 == 0 {
        c.execute("DELETE FROM events WHERE seq <= ?1", [seq - KEPT])?;
    }
    Ok(EventRow {
        seq,
        at,
        instance,
        kind: kind.to_owned(),
        data,
    })
}

impl Db {
    /// Records an event and forgets the oldest.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn record_event(
        &self,
        instance: Option<String>,
        kind: &str,
        data: serde_json::Value,
    ) -> Result<EventRow, DbError> {
        let kind = kind.to_owned();
        self.call(move |c| insert(c, instance, &kind, data)).await
    }

    /// The number of the newest event; 0 before the first.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn newest_event(&self) -> Result<i64, DbError> {
        self.call(|c| {
            let sql = "SELECT coalesce(max(seq), 0) FROM events";
            Ok(c.prepare_cached(sql)?.query_row([], |r| r.get(0))?)
        })
        .await
    }

    /// The number of the event before the last so many of an instance, or 0.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn event_before_last(&self, id: &InstanceId, last: u32) -> Result<i64, DbError> {
        let id = id.clone();
        self.call(move |c| {
            let sql = "SELECT seq FROM events WHERE instance = ?1 ORDER BY seq DESC \
                       LIMIT 1 OFFSET ?2";
            let mut statement = c.prepare_cached(sql)?;
            let before = statement.query_row(params![id.as_str(), last], |r| r.get(0));
            Ok(before.optional()?.unwrap_or(0))
        })
        .await
    }

    /// Events after `seq`, oldest first, `most` at a time.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn events_after(&self, seq: i64, most: u32) -> Result<Vec<EventRow>, DbError> {
        self.call(move |c| {
            let sql = "SELECT seq, at, instance, kind, data FROM events WHERE seq > ?1 \
                       ORDER BY seq LIMIT ?2";
            let mut statement = c.prepare_cached(sql)?;
            let rows = statement
                .query_map(params![seq, most], |r| {
                    Ok((
                        r.get(0)?,
                        r.get(1)?,
                        r.get(2)?,
                        r.get(3)?,
                        r.get::<_, String>(4)?,
                    ))
                })?
                .collect::<Result<Vec<(i64, String, Option<String>, String, String)>, _>>()?;
            rows.into_iter()
                .map(|(seq, at, instance, kind, data)| {
                    let data = stored("data", &seq.to_string(), &data)?;
                    Ok(EventRow {
                        seq,
                        at,
                        instance,
                        kind,
                        data,
                    })
                })
                .collect()
        })
        .await
    }
}
