use super::*;

fn config() -> DoctorConfig {
    DoctorConfig {
        state_dir: "/var/lib/crn-agent".into(),
        prefix: Some("2001:db8:1:2::/64".into()),
        uplink: None,
        ndp_proxy: false,
        table: "crn_agent".into(),
        ipv4_pool: None,
        socket: "/run/crn-agent/api.sock".into(),
        qemu: "/usr/bin/qemu-system-x86_64".into(),
        accel: AccelSetting::Auto,
        uid_base: 2_100_000,
        uid_count: 4096,
        uefi_code: "/usr/share/OVMF/OVMF_CODE_4M.fd".into(),
        uefi_vars: "/usr/share/OVMF/OVMF_VARS_4M.fd".into(),
    }
}

fn ids(checks: &[Check]) -> Vec<&str> {
    checks.iter().map(|c| c.id).collect()
}

#[tokio::test]
async fn this_host_is_examined_completely_and_soon() {
    let started = std::time::Instant::now();
    let checks = examine(&config()).await;
    let took = started.elapsed();
    let all: Vec<_> = CATALOGUE.iter().map(|e| e.id).collect();
    assert_eq!(ids(&checks), all);
    assert!(took < Duration::from_secs(4), "{took:?}");
    for check in &checks {
        assert!(
            !check.found.is_empty() && !check.meaning.is_empty(),
            "{check:?}"
        );
        assert!(!check.found.contains("could not be examined"), "{check:?}");
        if check.required && check.status == Status::Missing {
            assert!(check.remedy.is_some(), "{check:?}");
        }
    }
    // The measured KVM and the decision must agree.
    let of = |id| checks.iter().find(|c| c.id == id).unwrap();
    match of("kvm").status {
        Status::Ok => assert!(of("accel").found.starts_with("KVM"), "{checks:?}"),
        _ => assert!(of("accel").found.starts_with("TCG"), "{checks:?}"),
    }
    println!("{}\n{took:?}", render_table(&checks, 100));
}

#[tokio::test]
async fn a_host_without_anything_fails_and_says_why() {
    let nothing = DoctorConfig {
        state_dir: "/nonexistent/state".into(),
        prefix: None,
        qemu: "/nonexistent/qemu".into(),
        uefi_code: "/nonexistent/code".into(),
        ..config()
    };
    let checks = examine(&nothing).await;
    assert_eq!(exit_status(&checks), 1);
    let missing = |id| {
        checks
            .iter()
            .any(|c| c.id == id && c.status == Status::Missing)
    };
    for id in [
        "qemu",
        "qemu-features",
        "qemu-sev",
        "firmware-uefi",
        "ipv6-prefix",
    ] {
        assert!(missing(id), "{id}");
    }
    assert!(render_table(&checks, 80).contains("Guests cannot run without:\n  QEMU\n"));
}

#[tokio::test]
async fn what_panics_or_hangs_leaves_the_others_alone() {
    let panicking = on_thread(&["kvm", "accel"], || panic!("on purpose"));
    let hanging = on_thread(&["disk"], || {
        loop {
            std::thread::park();
        }
    });
    let never = as_task(&["qemu"], std::future::pending());
    let bad = as_task(&["tun"], async { panic!("on purpose") });
    let good = as_task(&["nftables"], async {
        vec![checks::check("nftables", Status::Ok, "x", "y", None)]
    });
    let started = std::time::Instant::now();
    let (a, b, c, d, e) = tokio::join!(panicking, hanging, never, bad, good);
    assert!(started.elapsed() < LIMIT + Duration::from_secs(1));
    for (checks, expected, why) in [
        (&a, &["kvm", "accel"][..], "itself failed"),
        (&b, &["disk"], "no answer"),
        (&c, &["qemu"], "no answer"),
        (&d, &["tun"], "itself failed"),
    ] {
        assert_eq!(ids(checks), expected);
        assert!(
            checks
                .iter()
                .all(|c| c.status == Status::Degraded && c.found.contains(why))
        );
    }
    assert_eq!(e[0].status, Status::Ok);
}

#[test]
fn only_what_is_required_fails() {
    let of = |id, status| checks::check(id, status, "x", "y", None);
    for (checks, expected) in [
        (vec![], 0),
        (vec![of("qemu", Status::Ok), of("kvm", Status::Missing)], 0),
        (vec![of("qemu", Status::Degraded)], 0),
        (
            vec![
                of("sev-device", Status::Missing),
                of("qemu", Status::Missing),
            ],
            1,
        ),
    ] {
        assert_eq!(exit_status(&checks), expected, "{checks:?}");
    }
}

#[test]
fn tables_fit_and_carry_no_control_characters() {
    let long = "sysctl --system ".repeat(20);
    let checks = [
        checks::check(
            "kvm",
            Status::Ok,
            "fine\u{1b}[31m\n",
            "unseen",
            Some("unseen"),
        ),
        checks::check("users", Status::Degraded, "half", "so so", Some(&long)),
        checks::check("qemu", Status::Missing, "x".repeat(300), "bad", None),
    ];
    for width in [0, 40, 60, 80, 100, 200] {
        let table = render_table(&checks[..2], width);
        let widest = table.lines().map(|l| l.chars().count()).max().unwrap();
        assert!(
            widest <= usize::from(width.max(40)),
            "{width}: {widest}\n{table}"
        );
        assert!(!table.contains('\u{1b}') && !table.contains("unseen"));
    }
    insta::assert_snapshot!(render_table(&[checks[0].clone(), checks[2].clone()], 72));
}

#[test]
fn json_has_the_documented_fields() {
    let check = checks::check("kvm", Status::Degraded, "slow", "TCG", Some("nest"));
    assert_eq!(
        serde_json::to_value(check).unwrap(),
        serde_json::json!({
            "id": "kvm", "title": "KVM", "required": false, "status": "degraded",
            "found": "slow", "meaning": "TCG", "remedy": "nest"
        })
    );
}

#[test]
fn every_check_has_its_section_in_the_documentation() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/doctor.md");
    let doc = std::fs::read_to_string(path).unwrap();
    for entry in CATALOGUE {
        assert!(
            doc.contains(&format!("\n## `{}`: ", entry.id)),
            "docs/doctor.md: {}",
            entry.id
        );
    }
    let headings = doc.lines().filter(|l| l.starts_with("## `")).count();
    assert_eq!(headings, CATALOGUE.len());
}
