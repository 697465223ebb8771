//! What is asked of the kernel, in blocking calls.

use std::io;

use crate::{
    error::Error,
    guest::GuestSpec,
    netlink::route::{Change, Observed, Router},
    spec::HostSpec,
    sysctl,
    uplinks::Uplinks,
    wanted,
};

pub(super) fn kernel(what: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Kernel {
        what: what.into(),
        source,
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| Error::Task(e.to_string()))?
}

/// Settings, address, routes and the rest of a tap that was just made.
pub(super) fn bring_up(guest: &GuestSpec, mtu: u32, proxying: &[String]) -> Result<(), Error> {
    sysctl::of_tap(&guest.tap)
        .iter()
        .try_for_each(|s| s.apply().map(drop))?;
    let gone = || Error::NoSuchInterface {
        name: guest.tap.to_string(),
    };
    let tap = index(guest.tap.as_str())?.ok_or_else(gone)?;
    route(&wanted::set_up(guest, tap, mtu, &indices(proxying)?))
}

pub(super) fn observe() -> Result<Observed, Error> {
    let observe = || Router::open()?.observe();
    observe().map_err(kernel("list links, addresses, routes and neighbours"))
}

pub(super) fn route(changes: &[Change]) -> Result<(), Error> {
    if changes.is_empty() {
        return Ok(());
    }
    let mut router = Router::open().map_err(kernel("open a socket to routing"))?;
    let failed = router.change(changes);
    failed.map_err(|(change, source)| Error::Kernel {
        what: change.to_string(),
        source,
    })
}

/// The kernel's number of an interface; `None` when there is none of that name.
pub(super) fn index(name: &str) -> Result<Option<u32>, Error> {
    use rustix::{io::Errno, net};
    let error = |e: Errno| kernel("look an interface up")(e.into());
    let kind = (
        net::AddressFamily::INET,
        net::SocketType::DGRAM,
        net::SocketFlags::CLOEXEC,
    );
    let socket = net::socket_with(kind.0, kind.1, kind.2, None).map_err(error)?;
    match net::netdevice::name_to_index(socket, name) {
        Ok(index) => Ok(Some(index)),
        Err(Errno::NODEV) => Ok(None),
        Err(e) => Err(error(e)),
    }
}

/// Those that exist.
pub(super) fn indices(names: &[String]) -> Result<Vec<u32>, Error> {
    names
        .iter()
        .filter_map(|name| index(name).transpose())
        .collect()
}

/// What lies toward the internet now.
pub(super) fn uplinks(spec: &HostSpec, observed: &Observed, before: &Uplinks) -> Uplinks {
    let mut uplinks = Uplinks::find(spec, observed, before);
    let smallest = uplinks
        .names
        .iter()
        .filter_map(|name| sysctl::ipv6_mtu(name));
    uplinks.mtu = uplinks.mtu.into_iter().chain(smallest).min();
    uplinks
}
