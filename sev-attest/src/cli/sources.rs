//! Where `verify` takes certificates from.

use std::path::PathBuf;

use clap::Args;

use super::fetch::ServiceArgs;
use super::input::{self, CliError};
use crate::assemble;
use crate::chain::Chain;
use crate::fetch::Trust;
use crate::formats::Bundle;
use crate::report::{Report, SigningKey};
use crate::source::{CertificateSource, Wanted};
use crate::time::UnixTime;

/// Certificates of the signing key
#[derive(Debug, Args)]
#[command(next_help_heading = "Certificates")]
pub struct SourceArgs {
    /// Directory or file of certificates and revocation lists, PEM or DER; may be repeated
    #[arg(long, value_name = "PATH")]
    certs: Vec<PathBuf>,
    /// Don't use the network; certificates fetched before serve still
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    service: ServiceArgs,
}

impl SourceArgs {
    /// Sources to ask for what the report's own certificates and `--certs` don't have, nearest first.
    fn sources(&self) -> Result<Vec<Box<dyn CertificateSource>>, CliError> {
        let fetcher = self.service.fetcher(Trust::Amd, self.offline)?.forgiving();
        Ok(vec![Box::new(fetcher)])
    }
}

/// A chain, where one could be had, and what went wrong on the way.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) chain: Option<Chain>,
    pub(super) notes: Vec<String>,
}

/// Looks for the chain of `report`: among the certificates that came with it, in `--certs`, then in
/// the sources. A certificate that does not fit is taken only where no source has a better one.
pub(super) fn find(
    report: &Report,
    mut bundle: Bundle,
    args: &SourceArgs,
    want_crl: bool,
    at: UnixTime,
) -> Result<Found, CliError> {
    for path in &args.certs {
        bundle.extend(input::certificates(path)?);
    }
    let mut notes = Vec::new();
    let missing_leaf = !assemble::has_fitting_leaf(report, &bundle, at);
    let missing_crl = want_crl && bundle.crls.is_empty();
    if missing_leaf || missing_crl {
        let sources = args.sources()?;
        if let (true, Some(wanted)) = (missing_leaf, Wanted::of(report)) {
            let leaf = first(&sources, &mut notes, |source| source.leaf(&wanted, at));
            // Before others: of equals the first one is chosen.
            bundle.certificates.splice(0..0, leaf);
        }
        let product = assemble::chain(report, &bundle, at).and_then(|chain| chain.product());
        if let (true, Some(product)) = (missing_crl, product.or(report.product())) {
            let key = report.key_info.signing_key().unwrap_or(SigningKey::Vcek);
            bundle.crls.extend(first(&sources, &mut notes, |source| {
                source.crl(product, key)
            }));
        }
        notes.extend(sources.iter().flat_map(|source| source.notes()));
    }
    Ok(Found {
        chain: assemble::chain(report, &bundle, at),
        notes,
    })
}

/// The first answer; sources that fail leave a note.
fn first<T>(
    sources: &[Box<dyn CertificateSource>],
    notes: &mut Vec<String>,
    ask: impl Fn(&dyn CertificateSource) -> Result<Option<T>, crate::source::SourceError>,
) -> Option<T> {
    for source in sources {
        match ask(source.as_ref()) {
            Ok(Some(answer)) => return Some(answer),
            Ok(None) => {}
            Err(error) => notes.push(error.to_string()),
        }
    }
    None
}
