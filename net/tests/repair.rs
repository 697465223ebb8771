//! What others break is noticed and put right; what others own is left alone; nothing stays behind.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests are tests"
)]

mod world;

use std::{io::Write as _, slice::from_ref, time::Duration};

use net::{Change, Error, GuestIndex, HostNet, HostSpec, Offloads, Repairs, TapName, Watch};
use tokio::time::timeout;
use world::{Guest, INTERNET, Namespace, World, guest_spec, ports};

const FOREIGN: &str = "nft -f - <<'X'
table ip6 filter {
    set blocked { type ipv6_addr; elements = { 2001:db8:66::6 } }
    chain INPUT { type filter hook input priority filter; policy accept; ip6 saddr @blocked drop; }
}
table inet crn_test_other {
    chain c { counter drop; }
}
X";

/// Asks over and over: a wait that is given up loses nothing.
async fn event(watch: &mut Watch) -> Option<Change> {
    for limit in [2, 3, 5, 7, 30].repeat(40) {
        if let Ok(change) = timeout(Duration::from_millis(limit), watch.next()).await {
            return change;
        }
    }
    None
}

/// Waits until nothing comes any more.
async fn drain(watch: &mut Watch) {
    while timeout(Duration::from_millis(200), watch.next())
        .await
        .is_ok()
    {}
}

#[test]
fn a_broken_firewall_is_noticed_and_repaired() {
    World::run(|world| async move {
        world.host.sh(FOREIGN);
        let host = World::start(World::spec()).await;
        let spec = guest_spec(host.spec(), 3, &["22", "80-90"]);
        let guest = Guest::boot(&host, &spec).await;
        let _ssh = guest.inside.listen("[::]:22");
        let _dark = guest.inside.listen("[::]:99");
        let all = [spec.clone()];
        assert!(host.reconcile(&all).await.unwrap().is_clean());
        let mut watch = host.watch().unwrap();
        drain(&mut watch).await;

        let table = Repairs {
            table: true,
            ..Repairs::default()
        };
        let added = |n| Repairs {
            elements_added: n,
            ..Repairs::default()
        };
        let removed = |n| Repairs {
            elements_removed: n,
            ..Repairs::default()
        };
        for (damage, repairs) in [
            ("delete table inet crn_test", table.clone()),
            ("flush table inet crn_test", table.clone()),
            ("flush chain inet crn_test to_guest", table.clone()),
            ("insert rule inet crn_test forward accept", table.clone()),
            ("add chain inet crn_test extra", table.clone()),
            (
                "add set inet crn_test extra { type ifname; }",
                table.clone(),
            ),
            ("flush set inet crn_test macs", added(1)),
            (
                "flush set inet crn_test ports; flush set inet crn_test sources",
                added(2),
            ),
            (
                "flush set inet crn_test ranges; flush set inet crn_test ranged",
                added(2),
            ),
            (
                "add element inet crn_test ports { \"vmtap3\" . tcp . 99 }",
                removed(1),
            ),
            (
                "add element inet crn_test ranges { \"vmtap9\" . udp . 99-100 }",
                removed(1),
            ),
            ("flush ruleset", table.clone()),
        ] {
            world.host.sh(&format!("nft '{damage}'"));
            assert_eq!(event(&mut watch).await, Some(Change::Table), "{damage}");
            assert_eq!(host.reconcile(&all).await.unwrap(), repairs, "{damage}");
            assert!(host.reconcile(&all).await.unwrap().is_clean(), "{damage}");
            drain(&mut watch).await;
            assert!(
                world.internet.reach((guest.address(), 22)).is_ok(),
                "{damage}"
            );
            assert!(
                world.internet.connect((guest.address(), 99)).is_err(),
                "{damage}"
            );
            assert!(guest.inside.pings(INTERNET), "{damage}");
        }
        // A change goes on where the table is gone.
        world.host.sh("nft delete table inet crn_test");
        host.set_ports(&spec, &ports(&["22", "99"])).await.unwrap();
        assert!(world.internet.reach((guest.address(), 99)).is_ok());
        // Changes of other tables are none of ours.
        drain(&mut watch).await;
        world.host.sh(FOREIGN);
        assert_eq!(event(&mut watch).await, None);
        assert!(host.reconcile(&all).await.unwrap().is_clean());
    });
}

/// The table as nft writes it is the table that it reads.
#[test]
fn the_listing_loads_back() {
    World::run(|world| async move {
        let spec = HostSpec {
            ipv4: Some("172.16.0.0/12".parse().unwrap()),
            ..World::spec()
        };
        let host = World::start(spec).await;
        let spec = guest_spec(host.spec(), 3, &["22", "80-90", "53/udp"]);
        let _tap = host.add_guest(&spec).await.unwrap();
        let reload = "nft list table inet crn_test > $T; nft delete table inet crn_test; nft -f $T";
        world.host.sh(&format!("T=$(mktemp); {reload}; rm $T"));
        assert!(host.reconcile(&[spec]).await.unwrap().is_clean());
    });
}

#[test]
fn foreign_tables_stay_as_they_are() {
    World::run(|world| async move {
        world.host.sh(FOREIGN);
        let others = "nft -a list table ip6 filter; nft -a list table inet crn_test_other";
        let before = world.host.sh(others);
        let host = World::start(World::spec()).await;
        let spec = guest_spec(host.spec(), 3, &["22"]);
        let tap = host.add_guest(&spec).await.unwrap();
        host.set_ports(&spec, &ports(&["80", "1000-2000"]))
            .await
            .unwrap();
        world.host.sh("nft flush table inet crn_test");
        host.reconcile(from_ref(&spec)).await.unwrap();
        host.remove_guest(&spec).await.unwrap();
        drop(tap);
        assert_eq!(world.host.sh(others), before);
    });
}

#[test]
fn links_are_noticed_and_repaired() {
    World::run(|world| async move {
        let host = World::start(HostSpec {
            ndp_proxy: true,
            ..World::spec()
        })
        .await;
        let spec = guest_spec(host.spec(), 3, &["22"]);
        let guest = Guest::boot(&host, &spec).await;
        let _ssh = guest.inside.listen("[::]:22");
        let all = [spec.clone()];
        assert!(host.reconcile(&all).await.unwrap().is_clean());
        let mut watch = host.watch().unwrap();
        let link = Repairs {
            links: vec![GuestIndex(3)],
            ..Repairs::default()
        };
        let (gateway, address) = (spec.network.gateway(), guest.address());
        for (damage, told, repairs) in [
            ("link set vmtap3 down".to_owned(), true, link.clone()),
            (
                format!("addr del {gateway}/124 dev vmtap3"),
                true,
                link.clone(),
            ),
            (
                format!("route del {gateway}/124 dev vmtap3"),
                true,
                link.clone(),
            ),
            (
                "link set vmtap3 address 02:00:00:00:00:01".into(),
                false,
                link.clone(),
            ),
            (
                format!("neigh del {address} dev vmtap3"),
                false,
                link.clone(),
            ),
            (
                format!("neigh del proxy {address} dev eth0"),
                false,
                Repairs {
                    proxies_added: vec![address],
                    ..Repairs::default()
                },
            ),
            (
                "neigh add proxy 2001:db8:1:0:3:9:9:91 dev eth0".into(),
                false,
                Repairs {
                    proxies_removed: vec!["2001:db8:1:0:3:9:9:91".parse().unwrap()],
                    ..Repairs::default()
                },
            ),
            (
                "neigh add proxy 2001:db8:1::7 dev eth0".into(),
                false,
                Repairs::default(),
            ),
        ] {
            drain(&mut watch).await;
            world.host.ip(&damage);
            if told {
                assert_eq!(event(&mut watch).await, Some(Change::Link), "{damage}");
            }
            assert_eq!(host.reconcile(&all).await.unwrap(), repairs, "{damage}");
            assert!(host.reconcile(&all).await.unwrap().is_clean(), "{damage}");
            assert!(world.internet.reach((address, 22)).is_ok(), "{damage}");
        }
        world
            .host
            .sh("echo 0 > /proc/sys/net/ipv6/conf/all/forwarding");
        let repairs = host.reconcile(&all).await.unwrap();
        assert_eq!(repairs.sysctls, ["/proc/sys/net/ipv6/conf/all/forwarding"]);
        // Turning it off and on again has no effect on what guests have.
        assert!(world.internet.reach((address, 22)).is_ok());
    });
}

#[test]
fn a_tap_that_is_gone_is_told_and_made_anew() {
    World::run(|world| async move {
        let host = World::start(World::spec()).await;
        let spec = guest_spec(host.spec(), 3, &["22"]);
        let guest = Guest::boot(&host, &spec).await;
        let mut watch = host.watch().unwrap();
        drain(&mut watch).await;
        assert!(HostNet::tap_exists(&spec.tap));
        world.host.ip("link del vmtap3");
        assert_eq!(
            event(&mut watch).await,
            Some(Change::TapGone("vmtap3".into()))
        );
        let repairs = host.reconcile(from_ref(&spec)).await.unwrap();
        assert_eq!(
            repairs,
            Repairs {
                missing_taps: vec![GuestIndex(3)],
                ..Repairs::default()
            }
        );
        assert!(!HostNet::tap_exists(&spec.tap));
        // Whoever holds the descriptor may have a new tap for it; it goes with the descriptor, as
        // ever.
        host.reattach_guest(&spec, guest.descriptor(), Offloads::unknown())
            .await
            .unwrap();
        assert!(HostNet::tap_exists(&spec.tap));
        assert!(host.reconcile(from_ref(&spec)).await.unwrap().is_clean());
        drop(guest.kill());
        assert!(!HostNet::tap_exists(&spec.tap));
        let guest = Guest::boot(&host, &spec).await;
        let _ssh = guest.inside.listen("[::]:22");
        assert!(world.internet.reach((guest.address(), 22)).is_ok());
        assert!(host.reconcile(from_ref(&spec)).await.unwrap().is_clean());

        // A tap in use is refused, and its guest goes on.
        let error = host.add_guest(&spec).await.unwrap_err();
        assert!(matches!(error, Error::TapInUse { .. }), "{error}");
        assert!(world.internet.reach((guest.address(), 22)).is_ok());
        // One that is removed on purpose is no event.
        drain(&mut watch).await;
        host.remove_guest(&spec).await.unwrap();
        assert_eq!(event(&mut watch).await, None);
        host.remove_guest(&spec).await.unwrap();
    });
}

/// How many bytes a tap's frames toward its guest have, on the average, while a megabyte is sent.
fn frames_of_a_download(world: &World, guest: &Guest) -> u64 {
    let sent = || {
        let listing = world.host.ip(&format!("-s link show {}", guest.spec.tap));
        let mut after = listing
            .lines()
            .skip_while(|line| !line.trim().starts_with("TX:"));
        let numbers = after.nth(1).unwrap().split_whitespace();
        let numbers: Vec<u64> = numbers.take(2).map(|n| n.parse().unwrap()).collect();
        (numbers[0], numbers[1])
    };
    let server = guest.inside.listen("[::]:22");
    let mut client = world.internet.reach((guest.address(), 22)).unwrap();
    let reader = std::thread::spawn(move || {
        let (mut stream, _) = server.accept().unwrap();
        std::io::copy(&mut stream, &mut std::io::sink()).unwrap()
    });
    let (bytes, frames) = sent();
    client.write_all(&vec![7; 1 << 20]).unwrap();
    drop(client);
    assert_eq!(reader.join().unwrap(), 1 << 20);
    let (bytes_after, frames_after) = sent();
    (bytes_after - bytes) / (frames_after - frames)
}

/// A new tap knows nothing of the driver that the old one was told of (N22).
#[test]
fn a_tap_that_is_put_back_is_as_fast_as_before() {
    World::run(|world| async move {
        let host = World::start(World::spec()).await;
        let spec = guest_spec(host.spec(), 3, &["22"]);
        let mut guest = Guest::boot(&host, &spec).await;
        let fast = [
            "VIRTIO_NET_F_GUEST_CSUM",
            "VIRTIO_NET_F_GUEST_TSO4",
            "VIRTIO_NET_F_GUEST_TSO6",
            "VIRTIO_NET_F_GUEST_USO4",
        ];
        // The guests of these tests have headers of 10 bytes: without virtio 1.0.
        for (features, whole_segments) in [(&[][..], false), (&fast[..], true)] {
            world.host.ip("link del vmtap3");
            let descriptor = guest.descriptor();
            drop(guest.kill());
            let offloads = Offloads::negotiated(|name| features.contains(&name));
            let copy = descriptor.try_clone().unwrap();
            host.reattach_guest(&spec, copy, offloads).await.unwrap();
            guest = Guest::wire(&spec, descriptor);
            let frame = frames_of_a_download(&world, &guest);
            assert_eq!(frame > 3000, whole_segments, "{features:?}: {frame} bytes");
        }
    });
}

fn state(host: &Namespace) -> String {
    // Prefixes of link-local routes come and go with links' own addresses.
    [
        host.ip("-o link"),
        host.ip("-6 -o addr"),
        host.ip("-o route"),
        host.ip("-6 -o route"),
        host.ip("-6 neigh show proxy"),
        host.ip("-6 neigh show nud permanent"),
        host.sh("nft list ruleset"),
    ]
    .concat()
}

#[test]
fn nothing_stays_behind() {
    World::run(|world| async move {
        let spec = HostSpec {
            ndp_proxy: true,
            ipv4: Some("172.16.0.0/12".parse().unwrap()),
            ..World::spec()
        };
        let host = World::start(spec.clone()).await;
        let before = state(&world.host);
        let guests: Vec<_> = (0..10)
            .map(|n| guest_spec(&spec, n, &["22", "1-9", "53/udp"]))
            .collect();
        let mut taps = Vec::new();
        for guest in &guests {
            taps.push(host.add_guest(guest).await.unwrap());
        }
        assert!(host.reconcile(&guests).await.unwrap().is_clean());
        let (removed, killed) = guests.split_at(5);
        for guest in removed {
            host.set_ports(guest, &ports(&["1-100", "200-300/udp"]))
                .await
                .unwrap();
            host.remove_guest(guest).await.unwrap();
        }
        // The agent and its QEMUs are killed; the next agent knows of no guest.
        drop(host);
        let host = World::start(spec.clone()).await;
        let repairs = host.reconcile(&[]).await.unwrap();
        let orphans: Vec<_> = killed.iter().map(|g| g.tap.to_string()).collect();
        assert_eq!(repairs.removed_orphans, orphans);
        assert_eq!(repairs.proxies_removed.len(), 5 * 15);
        assert!(host.reconcile(&[]).await.unwrap().is_clean());
        assert_eq!(state(&world.host), before);
        drop(taps);

        // A failed start leaves nothing either: here another process has the tap.
        let other = net::testing::create_tap(&TapName::new(GuestIndex(4))).unwrap();
        assert!(host.add_guest(&guests[4]).await.is_err());
        drop(other);
        assert_eq!(state(&world.host), before);
        // And what cannot be asked changes nothing.
        let many: Vec<String> = (1..200)
            .map(|n| format!("{}-{}", n * 10, n * 10 + 1))
            .collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let greedy = guest_spec(&spec, 4, &many);
        assert!(matches!(
            host.add_guest(&greedy).await,
            Err(Error::TooManyRanges { .. })
        ));
        assert_eq!(state(&world.host), before);
    });
}

/// The next agent knows its guests: nothing of theirs changes.
#[test]
fn guests_are_adopted() {
    World::run(|world| async move {
        let host = World::start(World::spec()).await;
        let specs = [1, 2].map(|n| guest_spec(host.spec(), n, &["22"]));
        let one = Guest::boot(&host, &specs[0]).await;
        let two = Guest::boot(&host, &specs[1]).await;
        let _ssh = [&one, &two].map(|g| g.inside.listen("[::]:22"));
        drop(host);
        let host = World::start(World::spec()).await;
        assert!(world.internet.connect((one.address(), 22)).is_err());
        // Told late, but told: their taps are not orphans.
        let repairs = host.reconcile(&specs).await.unwrap();
        assert_eq!(
            repairs,
            Repairs {
                elements_added: 8,
                ..Repairs::default()
            }
        );
        assert!(world.internet.reach((one.address(), 22)).is_ok());
        assert!(world.internet.reach((two.address(), 22)).is_ok());
        // One that has no tap yet is left alone, and told.
        let three = guest_spec(host.spec(), 3, &["22"]);
        let all = [specs[0].clone(), specs[1].clone(), three];
        let repairs = host.reconcile(&all).await.unwrap();
        assert_eq!(
            repairs,
            Repairs {
                missing_taps: vec![GuestIndex(3)],
                ..Repairs::default()
            }
        );
    });
}

#[test]
fn a_host_without_its_uplink() {
    World::run(|_world| async move {
        let spec = HostSpec {
            uplink: Some("nowhere".into()),
            ..World::spec()
        };
        // It may come yet: tests/changes.rs.
        assert!(HostNet::open(spec).await.is_ok());
        for (table, uplink) in [
            ("", "eth0"),
            ("a b", "eth0"),
            ("x; flush ruleset", "eth0"),
            ("ok", "a\"b"),
            ("ok", "a/b"),
        ] {
            let spec = HostSpec {
                table: table.into(),
                uplink: Some(uplink.into()),
                ..World::spec()
            };
            assert!(
                matches!(HostNet::open(spec).await, Err(Error::BadName { .. })),
                "{table} {uplink}"
            );
        }
    });
}

/// Until the tables are back after somebody flushed all of nftables, guests have no firewall.
#[test]
fn the_window_after_a_flush_is_short() {
    World::run(|world| async move {
        let host = World::start(World::spec()).await;
        let spec = guest_spec(host.spec(), 1, &["22"]);
        let _guest = Guest::boot(&host, &spec).await;
        let mut watch = host.watch().unwrap();
        drain(&mut watch).await;
        let repair = async {
            while let Some(change) = watch.next().await {
                if change == Change::Table {
                    host.reconcile(from_ref(&spec)).await.unwrap();
                }
            }
        };
        let name = world.host.name().to_owned();
        let flush = tokio::task::spawn_blocking(move || {
            let script = "nft flush ruleset; date +%s%N; \
                          until nft list chain arp crn_test input >/dev/null 2>&1; do :; done; date +%s%N";
            let mut windows = Vec::new();
            for _ in 0..10 {
                let out = world::sh(&["ip", "netns", "exec", &name, "sh", "-c", script]);
                let times: Vec<u64> = out.lines().map(|l| l.parse().unwrap()).collect();
                windows.push(Duration::from_nanos(times[1] - times[0]));
                std::thread::sleep(Duration::from_millis(100));
            }
            windows.sort();
            windows
        });
        let windows = tokio::select! {
            windows = flush => windows.unwrap(),
            () = repair => unreachable!("the watch ended"),
        };
        println!("tables back after, least to most: {windows:?}");
        assert!(windows[4] < Duration::from_secs(1), "{windows:?}");
    });
}
