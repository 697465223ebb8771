//! Speed of disks and seeds beside the programs that one would call otherwise, on the same file
//! system in the same run. Prints rows of a Markdown table.
//!
//! `cargo run --release -p disk --example bench_disk [DIRECTORY]`; the directory (default: the
//! temporary one) is where the files go. The rivals are `qemu-img`, `cloud-localds` and
//! `sha256sum` from the PATH; whichever is missing is said to be.
//!
//! Ours is a call in this process, as the agent makes it; theirs is a process, as a program
//! without such a library starts it. Ours is synced to the disk when the call returns, theirs
//! is not.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints, and may stop"
)]

use std::{
    fs,
    hint::black_box,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use disk::{
    BaseRef, ByteSize, Format, ImageStore, Import, OverlaySpec, create_overlay, create_volume,
    grow, inspect,
    seed::{Filesystem, NetworkSpec, SeedSpec, SeedVolume, build, render},
};

/// Size of the image that is inspected, imported and hashed.
const IMAGE: usize = 256 << 20;

fn main() {
    let parent = std::env::args_os()
        .nth(1)
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = parent.join(format!("bench-disk-{}", std::process::id()));
    fs::create_dir(&dir).unwrap();
    println!("| what | ours | rival | | ratio |");
    println!("|---|--:|--:|---|--:|");
    disks(&dir);
    images(&dir);
    seeds(&dir);
    fs::remove_dir_all(&dir).unwrap();
}

fn disks(dir: &Path) {
    let base = dir.join("base.qcow2");
    create_volume(&base, ByteSize::from_gib(2), Format::Qcow2).unwrap();
    let spec = OverlaySpec::new(
        BaseRef {
            path: base.clone(),
            format: Format::Qcow2,
            virtual_size: ByteSize::from_gib(2),
        },
        ByteSize::from_gib(20),
    );
    let (ours, theirs) = (dir.join("ours"), dir.join("theirs"));
    let remove = || {
        let _ = fs::remove_file(&ours);
        let _ = fs::remove_file(&theirs);
    };
    compare(
        "create an overlay of 20 GiB",
        "qemu-img create",
        31,
        remove,
        || _ = create_overlay(&ours, &spec).unwrap(),
        program(
            "qemu-img",
            &[
                "create",
                "-q",
                "-f",
                "qcow2",
                "-b",
                s(&base),
                "-F",
                "qcow2",
                s(&theirs),
                "20G",
            ],
        ),
    );
    compare(
        "create a volume of 100 GiB",
        "qemu-img create",
        31,
        remove,
        || _ = create_volume(&ours, ByteSize::from_gib(100), Format::Qcow2).unwrap(),
        program(
            "qemu-img",
            &["create", "-q", "-f", "qcow2", s(&theirs), "100G"],
        ),
    );
    let fresh = || {
        remove();
        create_volume(&ours, ByteSize::from_gib(100), Format::Qcow2).unwrap();
        create_volume(&theirs, ByteSize::from_gib(100), Format::Qcow2).unwrap();
    };
    compare(
        "grow a volume from 100 to 200 GiB",
        "qemu-img resize",
        31,
        fresh,
        || grow(&ours, Format::Qcow2, ByteSize::from_gib(200)).unwrap(),
        program(
            "qemu-img",
            &["resize", "-q", "-f", "qcow2", s(&theirs), "200G"],
        ),
    );
    remove();
}

fn images(dir: &Path) {
    let raw = dir.join("image.raw");
    let image = dir.join("image.qcow2");
    fs::write(&raw, noise(IMAGE)).unwrap();
    let convert = ["convert", "-f", "raw", "-O", "qcow2", s(&raw), s(&image)];
    if !quiet(Command::new("qemu-img").args(convert)) {
        println!("| images | qemu-img is not there, left out | | | |");
        return;
    }
    let file = fs::File::open(&image).unwrap();
    compare(
        "inspect an image of 256 MiB, every table",
        "qemu-img check",
        15,
        || (),
        || _ = black_box(inspect(&file, None).unwrap()),
        program("qemu-img", &["check", "-f", "qcow2", s(&image)]),
    );
    let store = ImageStore::open(&dir.join("store")).unwrap();
    let digest = store
        .import(&image, &Import::default(), |_| ())
        .unwrap()
        .digest;
    compare(
        "verify an image of 256 MiB",
        "sha256sum",
        7,
        || (),
        || _ = black_box(store.verify(&digest, |_| ()).unwrap()),
        program("sha256sum", &[s(&image)]),
    );
}

fn seeds(dir: &Path) {
    let spec = SeedSpec {
        instance_id: "iid-1".to_owned(),
        hostname: "web-1".parse().unwrap(),
        ssh_keys: vec![
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH me"
                .parse()
                .unwrap(),
        ],
        network: NetworkSpec {
            mac: [0x52, 0x54, 0, 1, 2, 3],
            ipv6: ("2001:db8::2".parse().unwrap(), 64),
            gateway6: "2001:db8::1".parse().unwrap(),
            ipv4: None,
            nameservers: vec!["2001:db8::53".parse().unwrap()],
            mtu: None,
        },
        volumes: vec![SeedVolume {
            serial: "vol-data".to_owned(),
            mount: "/data".parse().unwrap(),
            fs: Filesystem::Ext4,
        }],
        user_data: Some("#cloud-config\npackages: [nginx]\n".parse().unwrap()),
    };
    let files = render(&spec).unwrap();
    let path = |name: &str| dir.join(name);
    fs::write(path("user"), &files.user_data).unwrap();
    fs::write(path("meta"), &files.meta_data).unwrap();
    fs::write(path("network"), &files.network_config).unwrap();
    let (ours, theirs) = (path("ours.iso"), path("theirs.iso"));
    let [network, user, meta] = ["network", "user", "meta"].map(path);
    compare(
        "write a seed with user data",
        "cloud-localds",
        11,
        || (),
        || fs::write(&ours, build(&spec).unwrap().iso).unwrap(),
        program(
            "cloud-localds",
            &[
                "--network-config",
                s(&network),
                s(&theirs),
                s(&user),
                s(&meta),
            ],
        ),
    );
}

/// A program with its arguments, ready to be run again and again.
fn program<'a>(name: &'a str, args: &'a [&'a str]) -> impl Fn() -> bool + use<'a> {
    move || quiet(Command::new(name).args(args))
}

fn quiet(command: &mut Command) -> bool {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs both in turn and prints the medians.
fn compare(
    what: &str,
    rival: &str,
    runs: usize,
    prepare: impl Fn(),
    ours: impl Fn(),
    theirs: impl Fn() -> bool,
) {
    prepare();
    if !theirs() {
        println!("| {what} | | {rival} is not there or failed, left out | | |");
        return;
    }
    let (mut mine, mut others) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        prepare();
        mine.push(time(&ours));
        others.push(time(|| _ = theirs()));
    }
    let (mine, others) = (median(mine), median(others));
    let ratio = others.as_secs_f64() / mine.as_secs_f64();
    println!(
        "| {what} | {} | {} | {rival} | {ratio:.1} x |",
        shown(mine),
        shown(others)
    );
}

fn time(work: impl Fn()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn shown(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    if ms < 1.0 {
        format!("{:.0} µs", ms * 1e3)
    } else {
        format!("{ms:.1} ms")
    }
}

/// Bytes that no format shrinks.
fn noise(len: usize) -> Vec<u8> {
    let mut x = 0x9e37_79b9_7f4a_7c15_u64;
    let word = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x.to_le_bytes()
    };
    std::iter::repeat_with(word).flatten().take(len).collect()
}

fn s(path: &Path) -> &str {
    path.to_str().unwrap()
}
