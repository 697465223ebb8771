//! IPv6 address plan, taps, routes, NDP proxying and the nftables firewall of the host.
