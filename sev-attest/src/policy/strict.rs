//! Policies to begin with: strict ones, and ones pinned to a report's platform.

use std::fmt::Write as _;

use super::TEMPLATE;
use crate::advisories::Table;
use crate::product::Product;
use crate::report::Report;

/// Why no strict policy fits a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StrictError {
    /// The product can be forged.
    #[error(
        "the report is of {0}, whose root seed can be extracted by software (AMD-SB-3045): a strict \
         policy excludes it"
    )]
    Forgeable(Product),
}

/// The template, with the product and the chip of `report` in place of its examples.
///
/// `product` is the certificate's, for reports that do not tell theirs.
#[must_use]
pub fn pinned(template: &str, report: &Report, product: Option<Product>) -> String {
    let mut text = template.to_owned();
    if let Some(product) = report.product().or(product) {
        text = with_line(&text, "product", &format!("[\"{product}\"]"));
    }
    if !report.chip_id.is_zero() {
        text = with_line(&text, "chip_id", &format!("[\"{}\"]", report.chip_id));
    }
    text
}

/// A policy that takes nothing on trust: no product that can be forged, the recommended floors, no
/// memory aliases, a revocation list, chips by name, all bulletins up to the table's date.
///
/// # Errors
/// For a report of a product that it excludes.
pub fn strict(report: Option<(&Report, Option<Product>)>) -> Result<String, StrictError> {
    let date = &Table::built_in().date;
    let mut text = format!(
        "# A strict policy, of {date}. It refuses platforms that were not updated since, and all of\n\
         # Milan, whose root seed can be extracted by software. Fill in measurement (or give it to\n\
         # verify) and, unless this names them, the chips that you know.\n\n"
    );
    text.push_str(TEMPLATE);
    for (key, value) in [
        ("product", "[\"Genoa\", \"Turin\"]".to_owned()),
        ("require_crl", "true".to_owned()),
        ("floor_set", "\"recommended\"".to_owned()),
        ("require_advisories", format!("\"{date}\"")),
        ("alias_check_complete", "true".to_owned()),
    ] {
        text = with_line(&text, key, &value);
    }
    let Some((report, product)) = report else {
        return Ok(text);
    };
    match report.product().or(product) {
        Some(Product::Milan) => Err(StrictError::Forgeable(Product::Milan)),
        _ => Ok(pinned(&text, report, product)),
    }
}

/// The text with the first line of `key`, commented out or not, saying `value`.
fn with_line(text: &str, key: &str, value: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut done = false;
    for line in text.lines() {
        let bare = line.strip_prefix('#').unwrap_or(line);
        let is_key = bare.split_once(" = ").is_some_and(|(name, _)| name == key);
        if is_key && !done {
            let _ = writeln!(out, "{key} = {value}");
            done = true;
        } else {
            let _ = writeln!(out, "{line}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Policy, RequireAdvisories};

    #[test]
    fn the_strict_policy_is_one() {
        let policy = Policy::from_toml(&strict(None).unwrap()).unwrap();
        assert_eq!(policy.product, [Product::Genoa, Product::Turin]);
        assert!(policy.require_crl && !policy.any_guest && !policy.any_time);
        assert_eq!(policy.platform.alias_check_complete, Some(true));
        assert!(!policy.floors.0.is_empty());
        let until = &policy.advisories.require;
        assert_eq!(
            *until,
            RequireAdvisories::Until(Table::built_in().date.clone())
        );
        assert!(policy.chip_id.is_empty());
    }
}
