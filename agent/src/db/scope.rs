//! Which records somebody's words can name.

use crn_api_types::{Owner, Subject};

use super::DbError;
use crate::ids::MIN_PREFIX;

/// Among which records a name or an id is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All of the node: the operator's by their names, everybody's by their ids, which
    /// may be abbreviated.
    Node,
    /// An owner's own, by their names or whole ids.
    Of(Owner),
    /// None.
    None,
}

impl Scope {
    /// Whose names are meant.
    pub(super) fn names_of(&self) -> Option<&str> {
        match self {
            Self::Node => Some(Owner::Operator.as_str()),
            Self::Of(owner) => Some(owner.as_str()),
            Self::None => None,
        }
    }

    /// Whose records there are to see: everybody's if there is no answer.
    pub(super) fn only_of(&self) -> Option<&str> {
        match self {
            Self::Node => None,
            Self::Of(owner) => Some(owner.as_str()),
            // Nobody owns anything.
            Self::None => Some(""),
        }
    }

    /// The condition that rows are in the scope, with [`Scope::only_of`] as `?1`: one
    /// that an index of `owner` serves.
    pub(super) fn condition(&self) -> &'static str {
        match self {
            Self::Node => "?1 IS NULL",
            Self::Of(_) | Self::None => "owner = ?1",
        }
    }

    /// The pattern (GLOB) of ids that `reference` stands for; one that fits nothing if
    /// it is none.
    pub(super) fn id_pattern(&self, reference: &str) -> String {
        let digits = reference.bytes().all(|b| b.is_ascii_hexdigit());
        match self {
            Self::Node if digits && reference.len() >= MIN_PREFIX => format!("{reference}*"),
            Self::Of(_) if digits => reference.to_owned(),
            _ => String::new(),
        }
    }
}

/// The one record that was named.
pub(super) fn only<T>(what: Subject, reference: &str, mut found: Vec<T>) -> Result<T, DbError> {
    let key = crate::ids::clip(reference);
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Ok(one),
        (Some(_), false) => Err(DbError::Conflict(format!(
            "{key} is the beginning of more than one id, or of one and a name: write more of the \
             {what}'s id"
        ))),
        (None, _) => Err(DbError::NotFound { what, key }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_abbreviate() {
        let tenant = Scope::Of(Owner::Operator);
        for (scope, reference, pattern) in [
            (&Scope::Node, "abcdef", "abcdef*"),
            (&Scope::Node, "abcde", ""),
            (&Scope::Node, "abcdeg", ""),
            (&Scope::Node, "abcdef*", ""),
            (&tenant, "abcdef", "abcdef"),
            (&tenant, "abcdef*", ""),
            (&Scope::None, "abcdef", ""),
        ] {
            assert_eq!(
                scope.id_pattern(reference),
                pattern,
                "{scope:?} {reference}"
            );
        }
    }
}
