//! What happened, kept for those who were not listening.

use crn_api_types::{Event, EventKind, Owner};
use rusqlite::{Connection, OptionalExtension, Row, params};
use time::Duration;

use super::{
    Db, DbError, Scope, json, now, rfc3339,
    row::{Columns, all},
};
use crate::ids::InstanceId;

/// How many of the operator's events are kept.
const KEPT: u32 = 10_000;
/// How many of each tenant's: what one of them does erases nobody else's.
const KEPT_OF_A_TENANT: u32 = 1000;
/// So long events are kept of those who have nothing here any more.
const REMEMBERED: Duration = Duration::days(30);
/// How often the oldest are forgotten, in events.
const FORGET_EVERY: i64 = 256;

/// What an event is about.
#[derive(Debug, Clone)]
pub enum About {
    /// An instance, also one whose record is gone.
    Instance(InstanceId),
    /// Something else of somebody.
    Of(Owner),
}

/// The owner of an instance; of one that is gone, whose its last event was.
fn owner_of(c: &Connection, id: &InstanceId) -> Result<Owner, DbError> {
    let sql = "SELECT coalesce((SELECT owner FROM instances WHERE id = ?1), \
               (SELECT owner FROM events WHERE instance = ?1 ORDER BY seq DESC LIMIT 1), ?2)";
    let owner: String = c
        .prepare_cached(sql)?
        .query_row([id.as_str(), Owner::Operator.as_str()], |r| r.get(0))?;
    owner
        .parse()
        .map_err(|e: crn_api_types::AddressError| DbError::Stored {
            what: "owner",
            key: id.to_string(),
            message: e.to_string(),
        })
}

/// Records an event within whatever transaction is open.
pub(super) fn insert(
    c: &Connection,
    about: &About,
    kind: EventKind,
    data: serde_json::Value,
) -> Result<Event, DbError> {
    let (owner, instance) = match about {
        About::Instance(id) => (owner_of(c, id)?, Some(id.to_string())),
        About::Of(owner) => (owner.clone(), None),
    };
    let at = rfc3339(now());
    let text = json("data", kind.as_str(), &data)?;
    let sql = "INSERT INTO events (at, owner, instance, kind, data) VALUES (?1, ?2, ?3, ?4, ?5)";
    c.prepare_cached(sql)?
        .execute(params![at, owner.as_str(), instance, kind.as_str(), text])?;
    let seq = c.last_insert_rowid();
    if seq % FORGET_EVERY == 0 {
        forget(c)?;
    }
    Ok(Event {
        seq,
        at,
        owner,
        instance,
        kind,
        data,
    })
}

/// Forgets each owner's oldest events, and all of those who are gone.
fn forget(c: &Connection) -> Result<(), DbError> {
    let operator = Owner::Operator;
    c.prepare_cached(
        "DELETE FROM events WHERE seq IN (SELECT seq FROM (SELECT seq, owner, \
         row_number() OVER (PARTITION BY owner ORDER BY seq DESC) AS age FROM events) \
         WHERE age > CASE owner WHEN ?1 THEN ?2 ELSE ?3 END)",
    )?
    .execute(params![operator.as_str(), KEPT, KEPT_OF_A_TENANT])?;
    c.prepare_cached(
        "DELETE FROM events WHERE owner IN (SELECT owner FROM events WHERE owner <> ?1 \
         EXCEPT SELECT owner FROM instances EXCEPT SELECT owner FROM volumes) AND at < ?2",
    )?
    .execute(params![operator.as_str(), rfc3339(now() - REMEMBERED)])?;
    Ok(())
}

fn decode(row: &Row<'_>) -> Result<Event, DbError> {
    let row = Columns::of(row, "seq")?;
    Ok(Event {
        seq: row.get("seq")?,
        at: row.get("at")?,
        owner: row.parsed("owner")?,
        instance: row.get("instance")?,
        kind: row.parsed("kind")?,
        data: row.json("data")?,
    })
}

/// The condition for events of `scope`, of one instance or of all: parameters `?1`
/// and `?2`.
fn condition(scope: &Scope, instance: Option<&InstanceId>) -> String {
    let of = instance.map_or("?2 IS NULL", |_| "instance = ?2");
    format!("{} AND {of}", scope.condition())
}

impl Db {
    /// Records an event.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn record_event(
        &self,
        about: About,
        kind: EventKind,
        data: serde_json::Value,
    ) -> Result<Event, DbError> {
        self.call(move |c| insert(c, &about, kind, data)).await
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

    /// The number of the event before the last so many of a scope and, if one is
    /// named, of an instance; 0 if there are fewer.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn event_before_last(
        &self,
        scope: Scope,
        instance: Option<InstanceId>,
        last: u32,
    ) -> Result<i64, DbError> {
        self.call(move |c| {
            let condition = condition(&scope, instance.as_ref());
            let sql = format!(
                "SELECT seq FROM events WHERE {condition} ORDER BY seq DESC LIMIT 1 OFFSET ?3"
            );
            let instance = instance.as_ref().map(InstanceId::as_str);
            let mut statement = c.prepare_cached(&sql)?;
            let before =
                statement.query_row(params![scope.only_of(), instance, last], |r| r.get(0));
            Ok(before.optional()?.unwrap_or(0))
        })
        .await
    }

    /// Events of a scope and, if one is named, of an instance after `seq`, oldest
    /// first, `most` at a time.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn events_after(
        &self,
        scope: Scope,
        instance: Option<InstanceId>,
        seq: i64,
        most: u32,
    ) -> Result<Vec<Event>, DbError> {
        self.call(move |c| {
            let condition = condition(&scope, instance.as_ref());
            let sql = format!(
                "SELECT seq, at, owner, instance, kind, data FROM events \
                 WHERE {condition} AND seq > ?3 ORDER BY seq LIMIT ?4"
            );
            let instance = instance.as_ref().map(InstanceId::as_str);
            let params = params![scope.only_of(), instance, seq, most];
            all(&mut *c.prepare_cached(&sql)?, params, decode)
        })
        .await
    }
}
