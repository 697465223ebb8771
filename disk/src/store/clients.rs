//! The HTTP clients of a store.
//!
//! They are reqwest's: connection pools, proxies from the environment and TLS come with it, and
//! hyper beneath it is what the agent's API runs on anyway. TLS is rustls with ring, the smallest
//! provider to build, and no OpenSSL. HTTP/2 is left out, so that each range has a connection of
//! its own.

use std::{sync::Arc, time::Duration};

use reqwest::{Client, Url};
use tokio::sync::OnceCell;

use super::{
    reach::{Reach, Resolver, is_loopback},
    tuning::Tuning,
};

/// The clients, each made when it is first used.
#[derive(Default)]
pub(super) struct Clients {
    plain: Places,
    tls: Places,
}

#[derive(Default)]
struct Places {
    /// This host, by a URL that says so: no proxy.
    local: OnceCell<Client>,
    inside: OnceCell<Client>,
    outside: OnceCell<Client>,
}

impl Clients {
    /// The client for a URL whose host is in `reach`, and which connects to nothing elsewhere; or
    /// why there is none.
    pub(super) async fn get(
        &self,
        url: &Url,
        reach: Reach,
        tuning: &Tuning,
    ) -> Result<&Client, String> {
        let (tls, local) = (url.scheme() == "https", is_loopback(url));
        let places = if tls { &self.tls } else { &self.plain };
        let slot = match (local, reach) {
            (true, _) => &places.local,
            (false, Reach::Inside) => &places.inside,
            (false, Reach::Outside) => &places.outside,
        };
        let connect_timeout = tuning.connect_timeout;
        slot.get_or_try_init(async || {
            let make = move || build(tls, local, reach, connect_timeout);
            let reason = match tokio::task::spawn_blocking(make).await {
                Ok(Ok(client)) => return Ok(client),
                Ok(Err(e)) => e.to_string(),
                Err(e) => e.to_string(),
            };
            Err(format!("cannot prepare a connection: {reason}"))
        })
        .await
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The machine's own certificates (or those of `SSL_CERT_FILE`) decide whom to trust; only https
/// needs them. They are read from files, so this blocks.
fn build(
    tls: bool,
    local: bool,
    reach: Reach,
    connect_timeout: Duration,
) -> Result<Client, BoxError> {
    let mut roots = rustls::RootCertStore::empty();
    if tls {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            return Err("no CA certificates found: install the package ca-certificates".into());
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = Client::builder()
        .tls_backend_preconfigured(config)
        .user_agent(concat!("crn-agent/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .dns_resolver(Arc::new(Resolver::new(reach)))
        .connect_timeout(connect_timeout)
        .pool_idle_timeout(Duration::from_secs(30));
    // A proxy (of the usual environment variables) is for the outside.
    Ok(if local { client.no_proxy() } else { client }.build()?)
}
