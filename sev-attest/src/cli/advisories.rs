//! `sev-attest advisories`: what AMD's bulletins mean for a report.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::Value;

use super::input::{self, CliError};
use crate::advisories::{MAX_TABLE, Signer, Table};
use crate::product::Product;

/// Show what AMD's security bulletins mean for a report
#[derive(Debug, Args)]
pub(crate) struct AdvisoriesArgs {
    #[command(subcommand)]
    command: AdvisoriesCommand,
}

#[derive(Debug, Args)]
struct TableArgs {
    /// Table of bulletins instead of the built-in one
    #[arg(long, value_name = "FILE")]
    advisories: Option<PathBuf>,
    /// Public key that must have signed that table: FILE.sig, ECDSA P-384 with SHA-384
    #[arg(long, value_name = "PEM", requires = "advisories")]
    advisories_key: Option<PathBuf>,
    /// Write JSON: an array with an object for each bulletin and product
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum AdvisoriesCommand {
    /// List all bulletins
    List {
        /// Only those about this product: milan, genoa or turin
        #[arg(long, value_name = "NAME", value_parser = product)]
        product: Option<Product>,
        #[command(flatten)]
        table: TableArgs,
    },
    /// Show one bulletin with sources and notes
    Show {
        /// AMD-SB-3019, SB-3019 or 3019; a CVE; or an attack's name
        bulletin: String,
        #[command(flatten)]
        table: TableArgs,
    },
}

/// Does what the arguments ask for.
///
/// # Errors
/// On tables that can't be read, and for a bulletin that the table does not have.
pub(crate) fn run(args: &AdvisoriesArgs, out: &mut impl Write) -> Result<(), CliError> {
    let text = match &args.command {
        AdvisoriesCommand::List { product, table } => {
            let mut bulletins = table.read()?;
            for advisory in &mut bulletins.advisories {
                let of = |row: &crate::advisories::Row| {
                    product.is_none_or(|it| row.silicon.iter().any(|s| s.product() == it))
                };
                advisory.rows.retain(of);
            }
            match table.json {
                true => {
                    let mut rows = bulletins.to_json();
                    if let (Value::Array(rows), Some(product)) = (&mut rows, product) {
                        rows.retain(|row| row["product"] == product.name());
                    }
                    format!("{rows:#}\n")
                }
                false => bulletins.to_text(),
            }
        }
        AdvisoriesCommand::Show { bulletin, table } => {
            let bulletins = table.read()?;
            let found: Vec<_> = bulletins.find(bulletin).collect();
            if found.is_empty() {
                let whose = bulletins.whose();
                return Err(CliError::Usage(format!("{bulletin}: not in {whose}")));
            }
            match table.json {
                true => {
                    let rows = found.iter().flat_map(|advisory| advisory.to_json());
                    format!("{:#}\n", Value::Array(rows.collect()))
                }
                false => {
                    let texts: Vec<String> = found.iter().map(|it| it.to_text()).collect();
                    format!("{}\n{}\n", texts.join("\n"), bulletins.whose())
                }
            }
        }
    };
    out.write_all(crate::show::plain_lines(&text).as_bytes())
        .map_err(CliError::Output)
}

impl TableArgs {
    fn read(&self) -> Result<Table, CliError> {
        match &self.advisories {
            None => Ok(Table::built_in().clone()),
            Some(path) => read(path, self.advisories_key.as_deref()),
        }
    }
}

/// Reads a table; with a key, only one that the key signed.
///
/// # Errors
/// When a file can't be read, the table is none, or the key did not sign it.
pub(crate) fn read(path: &Path, key: Option<&Path>) -> Result<Table, CliError> {
    let refused = |path: &Path, error: &dyn std::fmt::Display| {
        CliError::Usage(format!("{}: {error}", input::name(path)))
    };
    let text = |path: &Path| {
        let bytes = input::read(path, MAX_TABLE)?;
        String::from_utf8(bytes).map_err(|_| refused(path, &"not UTF-8"))
    };
    let written = text(path)?;
    let table = Table::from_toml(&written).map_err(|error| refused(path, &error))?;
    let Some(key) = key else {
        return Ok(table);
    };
    let mut beside = path.as_os_str().to_owned();
    beside.push(".sig");
    let beside = PathBuf::from(beside);
    let signature = input::read(&beside, MAX_TABLE)?;
    let signer = Signer::verify(written.as_bytes(), &signature, &text(key)?)
        .map_err(|error| refused(&beside, &error))?;
    Ok(table.signed_by(signer))
}

fn product(text: &str) -> Result<Product, String> {
    Product::from_name(text).ok_or_else(|| "expected milan, genoa or turin".to_owned())
}
