//! The two ends of the attested channel: the guest's, which serves reports and takes secrets, and the
//! owner's, which asks, has the answer judged, and sends.

#[cfg_attr(
    not(all(feature = "serve", feature = "unlock")),
    allow(dead_code, reason = "one end alone needs half of it")
)]
mod http;
#[cfg(all(feature = "serve", target_os = "linux"))]
pub mod serve;
#[cfg(all(test, feature = "serve", feature = "unlock", target_os = "linux"))]
pub(crate) mod tests;
#[cfg_attr(
    not(all(feature = "serve", feature = "unlock")),
    allow(dead_code, reason = "one end alone needs half of it")
)]
mod tls;
#[cfg(feature = "unlock")]
pub mod unlock;
