//! Names of base images that are in the store.

use crn_api_types::Subject;
use rusqlite::{OptionalExtension, Row, params};
use time::OffsetDateTime;

use super::{
    Db, DbError, rfc3339,
    row::{Columns, all, first},
};

/// A named image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRow {
    /// Name, as `--image` takes it.
    pub name: String,
    /// SHA-256 of the file, 64 hexadecimal digits: its name in the store.
    pub digest: String,
    /// `qcow2` or `raw`.
    pub format: String,
    /// Bytes that a guest sees.
    pub virtual_size: u64,
    /// Bytes on disk.
    pub file_size: u64,
    /// Where it came from.
    pub source: String,
    /// When it got its name.
    pub added_at: OffsetDateTime,
}

fn decode(row: &Row<'_>) -> Result<ImageRow, DbError> {
    let row = Columns::of(row, "name")?;
    Ok(ImageRow {
        name: row.get("name")?,
        digest: row.get("digest")?,
        format: row.get("format")?,
        virtual_size: row.get("virtual_size")?,
        file_size: row.get("file_size")?,
        source: row.get("source")?,
        added_at: row.time("added_at")?,
    })
}

const COLUMNS: &str = "name, digest, format, virtual_size, file_size, source, added_at";

impl Db {
    /// Gives a name to an image in the store; an older image loses it.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn name_image(&self, image: ImageRow) -> Result<(), DbError> {
        self.call(move |c| {
            c.execute(
                "INSERT OR REPLACE INTO images (name, digest, format, virtual_size, file_size, \
                 source, added_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    image.name,
                    image.digest,
                    image.format,
                    image.virtual_size,
                    image.file_size,
                    image.source,
                    rfc3339(image.added_at)
                ],
            )?;
            Ok(())
        })
        .await
    }

    /// An image by its name or `sha256:` digest, or none.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn image(&self, name: &str) -> Result<Option<ImageRow>, DbError> {
        let name = name.to_owned();
        self.call(move |c| {
            let sql =
                format!("SELECT {COLUMNS} FROM images WHERE name = ?1 OR digest = ?2 LIMIT 1");
            let digest = name.strip_prefix("sha256:").unwrap_or_default();
            first(&mut *c.prepare_cached(&sql)?, [&name, digest], decode)
        })
        .await
    }

    /// All named images.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn images(&self) -> Result<Vec<ImageRow>, DbError> {
        self.call(|c| {
            let sql = format!("SELECT {COLUMNS} FROM images ORDER BY name");
            all(&mut *c.prepare_cached(&sql)?, [], decode)
        })
        .await
    }

    /// Takes the name away. The digest is returned if no other name and no
    /// instance needs it any more.
    ///
    /// # Errors
    /// [`DbError::NotFound`]; [`DbError::Conflict`] while instances are layered over it.
    pub async fn forget_image(&self, name: &str) -> Result<Option<String>, DbError> {
        let name = name.to_owned();
        self.call(move |c| {
            let tx = c.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            let digest: Option<String> = tx
                .query_row("SELECT digest FROM images WHERE name = ?1", [&name], |r| {
                    r.get(0)
                })
                .optional()?;
            let key = crate::ids::clip(&name);
            let digest = digest.ok_or(DbError::NotFound {
                what: Subject::Image,
                key,
            })?;
            let users: u64 = tx.query_row(
                "SELECT count(*) FROM instances WHERE image = ?1",
                [&digest],
                |r| r.get(0),
            )?;
            if users > 0 {
                let message = format!("{users} instance(s) are layered over image {name}");
                return Err(DbError::Conflict(message));
            }
            tx.execute("DELETE FROM images WHERE name = ?1", [&name])?;
            let names: u64 = tx.query_row(
                "SELECT count(*) FROM images WHERE digest = ?1",
                [&digest],
                |r| r.get(0),
            )?;
            tx.commit()?;
            Ok((names == 0).then_some(digest))
        })
        .await
    }
}
