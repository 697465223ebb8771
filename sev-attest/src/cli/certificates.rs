//! Where `verify` takes certificates from.

use std::path::PathBuf;

use clap::Args;

use super::fetch::ServiceArgs;
use super::input::{self, CliError};
use crate::assemble;
use crate::cert::Crl;
use crate::chain::Chain;
use crate::fetch::Trust;
use crate::formats::Bundle;
use crate::report::{Report, SigningKey};
use crate::source::{CertificateSource, Wanted};
use crate::time::UnixTime;

/// Certificates of the signing key
#[derive(Debug, Args)]
#[command(next_help_heading = "Certificates")]
pub(crate) struct SourceArgs {
    /// Directory or file of certificates and revocation lists, PEM, DER, or what a cloud's service
    /// answers; may be repeated
    #[arg(long, value_name = "PATH")]
    certs: Vec<PathBuf>,
    /// Don't use the network; certificates fetched before serve still
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    service: ServiceArgs,
}

impl SourceArgs {
    /// Sources to ask for what the report's own certificates and `--certs` don't have, nearest
    /// first.
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
///
/// Where a revocation list is required, the sources are always asked for theirs: what is at hand
/// may be an old one, and the one that came with the report is the choice of the host under
/// judgement.
pub(super) fn find(
    report: &Report,
    own: &Bundle,
    args: &SourceArgs,
    require_crl: bool,
    at: UnixTime,
) -> Result<Found, CliError> {
    let mut notes = Vec::new();
    let mut given = Bundle::default();
    let mut named_crls = Vec::new();
    for path in &args.certs {
        let bundle = input::certificates(path, &mut notes)?;
        if !path.is_dir() {
            named_crls.extend(bundle.crls.iter().cloned());
        }
        given.extend(bundle);
    }
    let chain = |given: &Bundle| assemble::chain_beside(report, own, given, require_crl, at);
    let mut found = chain(&given);
    let missing_leaf = !found
        .as_ref()
        .is_some_and(|chain| assemble::leaf_fits(report, chain, at));
    if missing_leaf || require_crl {
        let sources = args.sources()?;
        if let (true, Some(wanted)) = (missing_leaf, Wanted::of(report)) {
            let leaf = first(&sources, &mut notes, |source| source.leaf(&wanted, at));
            given.certificates.extend(leaf);
        }
        let product = chain(&given).and_then(|chain| chain.product());
        if let (true, Some(product)) = (require_crl, product.or(report.product())) {
            let key = report.key_info.signing_key().unwrap_or(SigningKey::Vcek);
            given.crls.extend(first(&sources, &mut notes, |source| {
                source.crl(product, key)
            }));
        }
        notes.extend(sources.iter().flat_map(|source| source.notes()));
        found = chain(&given);
    }
    let chain = found.map(|chain| {
        let of_chain = |crl: &Crl| crl.is_issued_in_name_of(chain.ark());
        match named_crls.into_iter().next() {
            // It was named to be used: that it can't be must show.
            Some(other) if !given.crls.iter().any(of_chain) => {
                notes.push(format!(
                    "a revocation list of --certs is of another issuer than this chain's: {}",
                    other.issuer()
                ));
                if chain.crl().is_none() {
                    chain.with_crl(other)
                } else {
                    chain
                }
            }
            _ => chain,
        }
    });
    if require_crl && !own.crls.is_empty() && chain.as_ref().is_some_and(|c| c.crl().is_none()) {
        notes.push(
            "the revocation list that came with the report does not count where one is required: \
             the host may have kept an old one"
                .to_owned(),
        );
    }
    Ok(Found { chain, notes })
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
