//! The table for people.

use comfy_table::{ColumnConstraint, ContentArrangement, LineStyle, Table, Width, presets};

use super::{Check, Status};

/// Narrower than this no table can be read, columns.
const NARROWEST: u16 = 40;

/// The checks as a table that is at most `width` columns wide (at least 40), without
/// colour, and a line that sums up. Meaning and remedy stand where not all is well.
#[must_use]
pub fn render_table(checks: &[Check], width: u16) -> String {
    let width = width.max(NARROWEST);
    let titles = if width < 64 { 14 } else { 26 };
    let mut table = Table::new();
    table
        .load_style(presets::ASCII_HORIZONTAL_ONLY.row_separator(LineStyle::none()))
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(width)
        .set_header(["check", "status", "found, what it means, and the remedy"])
        .set_constraints([
            ColumnConstraint::Absolute(Width::Fixed(titles)),
            ColumnConstraint::Absolute(Width::Fixed(10)),
        ]);
    for check in checks {
        let mut text = plain(&check.found);
        if check.status != Status::Ok {
            text.push('\n');
            text.push_str(&plain(&check.meaning));
            if let Some(remedy) = &check.remedy {
                text.push_str("\n> ");
                text.push_str(&plain(remedy));
            }
        }
        table.add_row([check.title, check.status.word(), &text]);
    }
    let mut out: String = table
        .lines()
        .flat_map(|l| [l.trim_end().to_owned(), "\n".into()])
        .collect();
    out.push_str(&summary(checks));
    out
}

/// What a program or a file said may hold control characters; a terminal gets none.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

fn summary(checks: &[Check]) -> String {
    let count = |s| checks.iter().filter(|c| c.status == s).count();
    let required: Vec<_> = checks
        .iter()
        .filter(|c| c.required && c.status == Status::Missing)
        .map(|c| format!("  {}\n", c.title))
        .collect();
    let verdict = if required.is_empty() {
        "Guests can run.\n".to_owned()
    } else {
        format!("Guests cannot run without:\n{}", required.concat())
    };
    format!(
        "{} ok, {} degraded, {} missing.\n{verdict}",
        count(Status::Ok),
        count(Status::Degraded),
        count(Status::Missing)
    )
}
