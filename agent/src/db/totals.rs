//! What has been promised altogether.

use rusqlite::Connection;

use super::{Db, DbError};
use crate::capacity::Totals;

pub(super) fn totals(c: &Connection) -> Result<Totals, DbError> {
    let sql = "SELECT count(*), coalesce(sum(spec ->> 'vcpus'), 0), \
               coalesce(sum(spec ->> 'memory'), 0), coalesce(sum(spec ->> 'disk'), 0) FROM instances";
    let mut totals = c.prepare_cached(sql)?.query_row([], |r| {
        Ok(Totals {
            instances: r.get(0)?,
            vcpus: r.get(1)?,
            memory_mib: r.get(2)?,
            disk_mib: r.get(3)?,
        })
    })?;
    let volumes: u64 = c
        .prepare_cached("SELECT coalesce(sum(mib), 0) FROM volumes")?
        .query_row([], |r| r.get(0))?;
    totals.disk_mib += volumes;
    Ok(totals)
}

impl Db {
    /// What has been promised altogether.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn totals(&self) -> Result<Totals, DbError> {
        self.call(|c| totals(c)).await
    }
}
