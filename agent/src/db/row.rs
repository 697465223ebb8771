//! Reading rows: columns by their names, texts as what they stand for.

use std::{fmt::Display, str::FromStr};

use rusqlite::{Params, Row, Statement, types::FromSql};
use time::OffsetDateTime;

use super::DbError;

/// A row, and the key by which errors name it.
pub(super) struct Columns<'a> {
    row: &'a Row<'a>,
    key: String,
}

impl<'a> Columns<'a> {
    /// Of a row whose column `key` identifies it.
    pub(super) fn of(row: &'a Row<'a>, key: &'static str) -> Result<Self, DbError> {
        let key = row.get_ref(key)?.as_str().map(str::to_owned);
        let key = key.or_else(|_| row.get::<_, i64>(0).map(|number| number.to_string()))?;
        Ok(Self { row, key })
    }

    /// What SQLite itself knows.
    pub(super) fn get<T: FromSql>(&self, column: &'static str) -> Result<T, DbError> {
        Ok(self.row.get(column)?)
    }

    /// A text that is parsed.
    pub(super) fn parsed<T: FromStr<Err: Display>>(
        &self,
        column: &'static str,
    ) -> Result<T, DbError> {
        let text: String = self.get(column)?;
        text.parse().map_err(|e: T::Err| self.bad(column, &e))
    }

    /// The same, where there may be none.
    pub(super) fn parsed_option<T: FromStr<Err: Display>>(
        &self,
        column: &'static str,
    ) -> Result<Option<T>, DbError> {
        let text: Option<String> = self.get(column)?;
        text.map(|text| text.parse().map_err(|e: T::Err| self.bad(column, &e)))
            .transpose()
    }

    /// A JSON text.
    pub(super) fn json<T: serde::de::DeserializeOwned>(
        &self,
        column: &'static str,
    ) -> Result<T, DbError> {
        let text: String = self.get(column)?;
        serde_json::from_str(&text).map_err(|e| self.bad(column, &e))
    }

    /// The same, where there may be none.
    pub(super) fn json_option<T: serde::de::DeserializeOwned>(
        &self,
        column: &'static str,
    ) -> Result<Option<T>, DbError> {
        let text: Option<String> = self.get(column)?;
        text.map(|text| serde_json::from_str(&text).map_err(|e| self.bad(column, &e)))
            .transpose()
    }

    /// A time.
    pub(super) fn time(&self, column: &'static str) -> Result<OffsetDateTime, DbError> {
        let text: String = self.get(column)?;
        let format = &time::format_description::well_known::Rfc3339;
        OffsetDateTime::parse(&text, format).map_err(|e| self.bad(column, &e))
    }

    fn bad(&self, what: &'static str, why: &dyn Display) -> DbError {
        DbError::Stored {
            what,
            key: self.key.clone(),
            message: why.to_string(),
        }
    }
}

/// The first row, if there is one.
pub(super) fn first<T>(
    statement: &mut Statement<'_>,
    params: impl Params,
    decode: impl FnOnce(&Row<'_>) -> Result<T, DbError>,
) -> Result<Option<T>, DbError> {
    let mut rows = statement.query(params)?;
    rows.next()?.map(decode).transpose()
}

/// All rows.
pub(super) fn all<T>(
    statement: &mut Statement<'_>,
    params: impl Params,
    decode: impl FnMut(&Row<'_>) -> Result<T, DbError>,
) -> Result<Vec<T>, DbError> {
    statement.query_and_then(params, decode)?.collect()
}
