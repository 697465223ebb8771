//! Tables in words and in JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Advisory, Row, Table};
use crate::product::{Product, Silicon};

impl Table {
    /// Every row as an object, one for each product that it is about.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let rows = self.advisories.iter().flat_map(Advisory::to_json);
        Value::Array(rows.collect())
    }

    /// A line for each bulletin and product.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for advisory in &self.advisories {
            for row in &advisory.rows {
                let silicon: Vec<&str> = row.silicon.iter().map(|it| it.name()).collect();
                let Advisory { bulletin, date, .. } = advisory;
                let _ = writeln!(
                    text,
                    "{bulletin:<12}  {date}  {:<14}  {:<28}  {}",
                    row.status.name(),
                    advisory.title(),
                    format_args!("{}: {}", silicon.join(", "), row.asks()),
                );
            }
        }
        let _ = writeln!(text, "{}", self.whose());
        text
    }
}

impl Advisory {
    /// The attack's name, or the first CVE.
    #[must_use]
    pub fn title(&self) -> &str {
        let cve = self.cves.first().map(String::as_str);
        self.name.as_deref().or(cve).unwrap_or_default()
    }

    /// The rows as objects, one for each product.
    #[must_use]
    pub fn to_json(&self) -> Vec<Value> {
        let of = |row: &Row, product: Product| {
            let silicon: Vec<&str> = row
                .silicon
                .iter()
                .filter(|silicon| silicon.product() == product)
                .map(|silicon| silicon.name())
                .collect();
            let mut value = json!({
                "bulletin": self.bulletin,
                "name": self.name,
                "date": self.date.to_string(),
                "cves": self.cves,
                "gives": self.gives,
                "product": product.name(),
                "silicon": silicon,
                "mitigation_bit": row.mitigation,
                "alias_check_complete": row.alias_check_complete,
                "iommu_write_safe": row.iommu_write_safe,
                "ciphertext_hiding": row.ciphertext_hiding,
                "or_smt_off": row.or_smt_off,
                "status": row.status.name(),
                "confidence": row.confidence.name(),
                "source": self.source,
                "note": row.note,
            });
            for (name, minimum) in row.minima() {
                value[name] = json!(minimum);
            }
            value
        };
        let products = |row: &Row| {
            let has = |product: &Product| row.silicon.iter().any(|it| it.product() == *product);
            Product::ALL.into_iter().filter(has).collect::<Vec<_>>()
        };
        self.rows
            .iter()
            .flat_map(|row| products(row).into_iter().map(move |product| (row, product)))
            .map(|(row, product)| of(row, product))
            .collect()
    }

    /// All there is to say, in lines.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = format!("{} of {}", self.bulletin, self.date);
        if let Some(name) = &self.name {
            let _ = write!(text, ", {name}");
        }
        let cves = self.cves.join(", ");
        let _ = writeln!(text, "\n  lets an attacker  {}", self.gives);
        let _ = writeln!(
            text,
            "  CVEs              {}",
            if cves.is_empty() { "none" } else { &cves }
        );
        let _ = writeln!(text, "  source            {}", self.source);
        for row in &self.rows {
            let silicon: Vec<&str> = row.silicon.iter().map(|it: &Silicon| it.name()).collect();
            let (status, confidence) = (row.status.name(), row.confidence.name());
            let _ = writeln!(text, "  {}", silicon.join(", "));
            let _ = writeln!(text, "    status      {status} (confidence: {confidence})");
            let _ = writeln!(text, "    fixed from  {}", row.asks());
            if let Some(note) = &row.note {
                let _ = writeln!(text, "    note        {note}");
            }
        }
        text
    }
}

impl Row {
    /// What the row asks for, in words.
    fn asks(&self) -> String {
        let mut asks: Vec<String> = self
            .minima()
            .iter()
            .filter_map(|(name, minimum)| Some(format!("{name} {}", (*minimum)?)))
            .collect();
        asks.extend(self.mitigation.map(|bit| format!("mitigation {bit}")));
        for (asked, what) in [
            (self.alias_check_complete, "alias check complete"),
            (self.iommu_write_safe, "IOMMU write safe"),
            (self.ciphertext_hiding, "ciphertext hiding"),
        ] {
            asks.extend(asked.then(|| what.to_owned()));
        }
        let mut text = asks.join(", ");
        if self.or_smt_off {
            text.push_str(if text.is_empty() {
                "SMT off"
            } else {
                "; or SMT off"
            });
        }
        if text.is_empty() {
            text.push_str("no number");
        }
        text
    }
}
