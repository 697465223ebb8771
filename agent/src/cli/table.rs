//! Tables and text for terminals.

use std::fmt::Write as _;

use comfy_table::{ColumnConstraint, ContentArrangement, LineStyle, Table, presets};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Narrower than this no table can be read, columns.
const NARROWEST: u16 = 40;

/// Foreign text with everything escaped that a terminal would obey or that would
/// change the order in which it is read.
#[must_use]
pub fn plain(text: &str) -> String {
    escape(text, |_| false)
}

/// As [`plain`], with line ends and tabulators left as they are.
#[must_use]
pub fn plain_lines(text: &str) -> String {
    escape(text, |c| c == '\n' || c == '\t')
}

fn escape(text: &str, keep: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if !keep(c) && (c.is_control() || is_formatting(c)) {
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Marks that show nothing and change how other text is shown.
fn is_formatting(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Columns of a table; those with `true` are never broken.
pub type Columns<'a> = [(&'a str, bool)];

/// A table at most `width` columns wide (at least 40).
#[must_use]
pub fn table(columns: &Columns<'_>, rows: &[Vec<String>], width: u16) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING.row_separator(LineStyle::none()))
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(width.max(NARROWEST))
        .set_header(columns.iter().map(|(title, _)| *title))
        .set_constraints(columns.iter().map(|(_, whole)| {
            if *whole {
                ColumnConstraint::ContentWidth
            } else {
                ColumnConstraint::UpperBoundary(comfy_table::Width::Percentage(60))
            }
        }));
    for row in rows {
        table.add_row(row.iter().map(|cell| plain(cell)));
    }
    for i in 0..columns.len() {
        if let Some(column) = table.column_mut(i) {
            column.set_padding((0, 2));
        }
    }
    lines(&table)
}

/// Titles and values, one pair a line.
#[must_use]
pub fn pairs(rows: &[(&str, String)], width: u16) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING.row_separator(LineStyle::none()))
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(width.max(NARROWEST))
        .set_constraints([ColumnConstraint::ContentWidth]);
    for (title, value) in rows {
        table.add_row([(*title).to_owned(), plain(value)]);
    }
    for i in 0..2 {
        if let Some(column) = table.column_mut(i) {
            column.set_padding((0, 2));
        }
    }
    lines(&table)
}

fn lines(table: &Table) -> String {
    let mut out = String::new();
    for line in table.lines() {
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// MiB as people say it.
#[must_use]
pub fn mib(mib: u64) -> String {
    if mib > 0 && mib.is_multiple_of(1 << 20) {
        format!("{} TiB", mib >> 20)
    } else if mib > 0 && mib.is_multiple_of(1024) {
        format!("{} GiB", mib >> 10)
    } else {
        format!("{mib} MiB")
    }
}

/// Bytes as people say them: three digits.
#[must_use]
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut tenths = u128::from(n) * 10;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    let name = UNITS.get(unit).unwrap_or(&"B");
    if unit == 0 || tenths >= 1000 || tenths % 10 == 0 {
        format!("{} {name}", tenths / 10)
    } else {
        format!("{}.{} {name}", tenths / 10, tenths % 10)
    }
}

/// A time (RFC 3339, UTC, as the agent tells it) to the second.
#[must_use]
pub fn time(at: &str) -> String {
    at.get(..19).unwrap_or(at).replacen('T', " ", 1)
}

/// Seconds since a time in RFC 3339.
#[must_use]
pub fn since(at: &str) -> Option<u64> {
    let at = OffsetDateTime::parse(at, &Rfc3339).ok()?;
    u64::try_from((OffsetDateTime::now_utc() - at).whole_seconds()).ok()
}

/// Seconds as people say them: the two largest units.
#[must_use]
pub fn duration(seconds: u64) -> String {
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let (minutes, rest) = (seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest} s"),
        (0, 0, _) => format!("{minutes} min {rest} s"),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_gets_through() {
        for (text, shown) in [
            ("plain ä 中", "plain ä 中"),
            ("\u{1b}[2J", "\\u{1b}[2J"),
            ("a\r\nb\tc\0", "a\\r\\nb\\tc\\u{0}"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("abc\u{202e}fed", "abc\\u{202e}fed"),
            ("a\u{200b}b", "a\\u{200b}b"),
        ] {
            assert_eq!(plain(text), shown);
        }
        assert_eq!(plain_lines("a\n\tb\u{7}"), "a\n\tb\\u{7}");
    }

    #[test]
    fn numbers() {
        for (n, shown) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (650 << 20, "650 MiB"),
            (u64::MAX, "16777215 TiB"),
        ] {
            assert_eq!(bytes(n), shown);
        }
        for (n, shown) in [
            (0, "0 MiB"),
            (512, "512 MiB"),
            (4096, "4 GiB"),
            (1 << 20, "1 TiB"),
            (1500, "1500 MiB"),
        ] {
            assert_eq!(mib(n), shown);
        }
        for (n, shown) in [
            (5, "5 s"),
            (65, "1 min 5 s"),
            (7260, "2 h 1 min"),
            (90_000, "1 d 1 h"),
        ] {
            assert_eq!(duration(n), shown);
        }
    }

    #[test]
    fn tables_fit() {
        let rows = vec![vec![
            "x".repeat(63),
            "2001:db8:1234:5678:3:1234:5678:9ab1".into(),
            "\u{1b}[0m".into(),
        ]];
        let text = table(
            &[("NAME", false), ("IPV6", true), ("PHASE", false)],
            &rows,
            80,
        );
        assert!(text.lines().all(|l| l.chars().count() <= 80), "{text}");
        assert!(
            text.contains("2001:db8:1234:5678:3:1234:5678:9ab1"),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'));
    }
}
