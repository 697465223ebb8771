//! Fuzz targets of `net`.

use net::{GuestNet, Ipv4Pool, PortRule, Prefix};

/// The texts of an operator or a user: a port rule, a prefix, a guest's network, an IPv4 pool.
///
/// # Panics
/// When what was taken is not taken again as it is written, or is not what it says.
pub fn network_texts(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(rule) = text.parse::<PortRule>() {
        assert!(rule.first() > 0 && rule.first() <= rule.last());
        assert_eq!(rule.to_string().parse::<PortRule>().ok(), Some(rule));
    }
    if let Ok(prefix) = text.parse::<Prefix>() {
        assert!(prefix.contains(prefix.address()) && (16..=112).contains(&prefix.length()));
        assert_eq!(prefix.to_string().parse::<Prefix>().ok(), Some(prefix));
    }
    if let Ok(network) = text.parse::<GuestNet>() {
        assert!(
            network
                .addresses()
                .all(|a| network.contains(a) && a != network.gateway())
        );
        assert_eq!(network.to_string().parse::<GuestNet>().ok(), Some(network));
    }
    if let Ok(pool) = text.parse::<Ipv4Pool>() {
        assert_eq!(pool.to_string().parse::<Ipv4Pool>().ok(), Some(pool));
    }
}

/// What `nft -j` lists.
///
/// # Panics
/// When a listing that was read differs from itself.
pub fn nft_listing(data: &[u8]) {
    assert_ne!(net::testing::listing_is_stable(data), Some(false));
}
