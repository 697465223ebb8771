//! A program in QEMU's place, started by the real launcher, tries what a QEMU that its
//! guest took over would try.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests fail the test"
)]

use std::{
    collections::BTreeMap,
    fs::{self, File, Permissions},
    io,
    os::{
        fd::OwnedFd,
        linux::net::SocketAddrExt,
        unix::{
            fs::PermissionsExt,
            net::{SocketAddr, UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    time::Duration,
};

use crn_agent::testing::qemu::{
    confine::{Confinement, Lock, Refused},
    launch::launch_by,
    plan::{FIRST_FD, FdSource, LaunchPlan, PlacedFile, PlannedFd},
    probe,
    sealed::SealedFile,
};
use nix::libc;
use testbed::{network, proc, until};

const UID: u32 = 2_100_011;
/// The longest file that the program may write, bytes.
const LARGEST: u64 = 1 << 20;
/// Where the program finds what the test tells it.
const TOLD: &str = "/told/paths";
const DEVICE: &str = "/dev/full";

/// What the program is to try, and what came of it.
type Findings = BTreeMap<String, String>;

/// Runs `inside` in QEMU's place.
async fn findings(confinement: Confinement) -> (Findings, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    // What keeps the program out is not the mode of the test's own directory.
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    fs::write(path("secret"), "secret").unwrap();
    fs::set_permissions(path("secret"), Permissions::from_mode(0o666)).unwrap();
    let _service = UnixListener::bind(path("service")).unwrap();
    fs::set_permissions(path("service"), Permissions::from_mode(0o666)).unwrap();
    let abstract_name = SocketAddr::from_abstract_name(b"crn-test-service").unwrap();
    let _abstract = UnixListener::bind_addr(&abstract_name).unwrap();
    fs::write(path("disk"), [0; 4096]).unwrap();
    // A program with a prefix of its own.
    fs::create_dir(path("bin")).unwrap();
    fs::copy(std::env::current_exe().unwrap(), path("bin/probe")).unwrap();
    let mut told = File::create(path("told")).unwrap();
    for line in [
        path("secret").display().to_string(),
        path("service").display().to_string(),
        std::process::id().to_string(),
    ] {
        io::Write::write_all(&mut told, format!("{line}\n").as_bytes()).unwrap();
    }
    // As a unit with OOMScoreAdjust= starts the agent.
    fs::write("/proc/self/oom_score_adj", "300").unwrap();
    let private_root = confinement.has(Lock::PrivateRoot);
    let placed = PlacedFile {
        content: SealedFile::read(&path("told"), 4096).unwrap(),
        path: TOLD.into(),
    };
    let plan = LaunchPlan {
        binary: path("bin/probe"),
        args: ["inside", "--exact", "--ignored", "--nocapture"]
            .map(str::to_owned)
            .to_vec(),
        fds: vec![PlannedFd {
            number: FIRST_FD,
            source: FdSource::ReadWrite(path("disk")),
        }],
        uid: UID,
        isolate_network: true,
        cgroup_procs: None,
        largest_file: Some(LARGEST),
        placed: private_root.then_some(placed).into_iter().collect(),
        devices: private_root.then_some(DEVICE.into()).into_iter().collect(),
        confinement,
    };
    let agent = Path::new(env!("CARGO_BIN_EXE_crn-agent"));
    let no_tap: OwnedFd = File::open("/dev/null").unwrap().into();
    let log = path("log");
    let held = launch_by(agent, &plan, no_tap, &log).unwrap();
    let process = held.release().await;
    let pid = process.pid();
    let said = tokio::task::spawn_blocking(move || {
        until(Duration::from_secs(120), "the program's findings", || {
            let said = fs::read_to_string(&log).unwrap();
            if said.contains("done:") {
                return Some(said);
            }
            assert!(process.is_alive(), "it ended early: {said}");
            None
        })
    });
    let said = said.await.unwrap();
    // It waits to be looked at.
    let status = proc::status(pid);
    let mut findings: Findings = said
        .lines()
        .filter_map(|l| l.split_once(": "))
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect();
    for kind in ["mnt", "pid", "uts", "cgroup", "net", "ipc"] {
        let (its, ours) = (proc::namespace(pid, kind), proc::own_namespace(kind));
        let own = if its == ours { "the host's" } else { "own" };
        findings.insert(format!("namespace {kind}"), own.into());
    }
    for field in [
        "CapBnd",
        "CapEff",
        "CapPrm",
        "CapAmb",
        "NoNewPrivs",
        "Seccomp",
    ] {
        findings.insert(field.into(), status[field].clone());
    }
    let score = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    findings.insert("score".into(), score.trim().into());
    proc::kill(pid, rustix::process::Signal::KILL);
    (findings, dir.path().to_owned())
}

#[test]
fn who_takes_over_qemu_finds_nothing_of_the_host() {
    network::alone(async || {
        let agent = Path::new(env!("CARGO_BIN_EXE_crn-agent"));
        assert_eq!(probe::probe(agent, UID).refused, [], "this host grants all");
        let (found, _) = findings(Confinement::default()).await;
        let expect = |key: &str, value: &str| {
            assert_eq!(
                found.get(key).map(String::as_str),
                Some(value),
                "{key}: {found:#?}"
            );
        };
        // files: not even a look at what there is
        for dir in ["root", "etc", "dev"] {
            expect(dir, "EACCES");
        }
        for path in [
            "/etc/passwd",
            "/proc/self/status",
            "/run",
            "/dev/kmsg",
            "the secret",
        ] {
            expect(&format!("open {path}"), "ENOENT");
        }
        for path in ["/x", "/usr/x", "/dev/x", "/told/x", "/etc/x"] {
            let errno = &found[&format!("create {path}")];
            assert!(
                ["EROFS", "EACCES"].contains(&errno.as_str()),
                "{path}: {errno}"
            );
        }
        expect("read what was placed", "ok");
        expect("write /dev/null", "ok");
        expect("read /dev/urandom", "ok");
        expect("open the planned device", "ok");
        expect("length within the limit", "ok");
        expect("length over the limit", "EFBIG");
        // sockets and processes
        expect("connect to the service", "ENOENT");
        expect("connect to the abstract service", "ECONNREFUSED");
        expect("pid", "1");
        expect("host name", "guest");
        expect("descriptors", "Some(1024)");
        expect("signal to the agent", "ESRCH");
        for kind in ["mnt", "pid", "uts", "cgroup", "net", "ipc"] {
            expect(&format!("namespace {kind}"), "own");
        }
        // rights
        for field in ["CapBnd", "CapEff", "CapPrm", "CapAmb"] {
            expect(field, "0000000000000000");
        }
        expect("NoNewPrivs", "1");
        expect("Seccomp", "2");
        expect("score", "0");
        // system calls
        for (name, ..) in calls() {
            let expected = match name {
                "clone3" | "io_uring_setup" | "io_setup" => "ENOSYS",
                _ => "EPERM",
            };
            expect(&format!("call {name}"), expected);
        }
    });
}

/// Each lock counts by itself: without one of the others, its own tries still fail.
#[test]
fn a_host_that_refuses_one_confinement_has_the_others() {
    network::alone(async || {
        for lock in Lock::ALL {
            let refused = vec![Refused {
                lock,
                why: "a test".into(),
            }];
            let (found, _) = findings(Confinement { refused }).await;
            let is = |key: &str, value: &str| found[key] == value;
            let has = |other: Lock| lock != other;
            assert_eq!(
                is("open /etc/passwd", "ENOENT"),
                has(Lock::PrivateRoot),
                "{found:#?}"
            );
            if lock == Lock::Landlock {
                let root: Vec<_> = found["root"].split(' ').collect();
                for name in ["proc", "sys", "tmp", "run", "var", "home", "root", "opt"] {
                    assert!(!root.contains(&name) || name == "tmp", "{root:?}");
                }
                assert_eq!(found["etc"], "ld.so.cache");
                assert_eq!(found["dev"], "full null random urandom zero");
            }
            // Landlock takes over where there is no private root.
            assert!(!is("open /etc/passwd", "ok"), "{found:#?}");
            assert!(!is("create /told/x", "ok"), "{found:#?}");
            assert_eq!(is("pid", "1"), has(Lock::PidNamespace), "{found:#?}");
            assert_eq!(
                is("call bpf", "EPERM") && is("call socket inet", "EPERM"),
                has(Lock::Seccomp),
                "{found:#?}"
            );
            for field in ["CapBnd", "CapEff"] {
                assert_eq!(found[field], "0000000000000000");
            }
        }
    });
}

/// The program; not a test by itself.
#[test]
#[ignore = "run in QEMU's place by the other tests"]
fn inside() {
    let say = |key: &str, value: &str| println!("{key}: {value}");
    let list = |dir: &str| {
        let mut names: Vec<_> = match fs::read_dir(dir) {
            Ok(entries) => entries
                .flatten()
                .map(|e| e.file_name().to_string_lossy().into_owned())
                .collect(),
            Err(e) => vec![word(&Err(e))],
        };
        names.sort();
        names.join(" ")
    };
    println!();
    for (key, dir) in [("root", "/"), ("etc", "/etc"), ("dev", "/dev")] {
        say(key, &list(dir));
    }
    let told = fs::read_to_string(TOLD);
    say(
        "read what was placed",
        &word(&told.as_ref().map(drop).map_err(again)),
    );
    let told = told.unwrap_or_default();
    let mut told = told.lines();
    let (secret, service) = (
        told.next().unwrap_or("/none"),
        told.next().unwrap_or("/none"),
    );
    let agent: i32 = told.next().map_or(0, |pid| pid.parse().unwrap());
    for path in [
        "/etc/passwd",
        "/proc/self/status",
        "/tmp",
        "/run",
        "/dev/kmsg",
    ] {
        say(&format!("open {path}"), &word(&File::open(path).map(drop)));
    }
    say("open the secret", &word(&File::open(secret).map(drop)));
    for path in ["/x", "/usr/x", "/dev/x", "/told/x", "/etc/x"] {
        say(&format!("create {path}"), &word(&fs::write(path, "x")));
    }
    say("write /dev/null", &word(&fs::write("/dev/null", "x")));
    let mut byte = [0];
    let random =
        File::open("/dev/urandom").and_then(|mut f| io::Read::read_exact(&mut f, &mut byte));
    say("read /dev/urandom", &word(&random));
    let device = File::options().read(true).write(true).open(DEVICE);
    say("open the planned device", &word(&device.map(drop)));
    // Others than the first process of a namespace are ended by the signal.
    let first = std::process::id() == 1;
    for (key, length) in [("within", LARGEST), ("over", LARGEST + 1)] {
        if length > LARGEST && !first {
            continue;
        }
        let length = i64::try_from(length).unwrap();
        let outcome = call(libc::SYS_ftruncate, [i64::from(FIRST_FD), length, 0, 0, 0]);
        say(&format!("length {key} the limit"), &word(&outcome));
    }
    say(
        "connect to the service",
        &word(&UnixStream::connect(service).map(drop)),
    );
    let name = SocketAddr::from_abstract_name(b"crn-test-service").unwrap();
    let outcome = UnixStream::connect_addr(&name).map(drop);
    say("connect to the abstract service", &word(&outcome));
    say("pid", &std::process::id().to_string());
    let name = nix::unistd::gethostname().unwrap();
    say("host name", &name.to_string_lossy());
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    say("descriptors", &format!("{most:?}"));
    let outcome = call(libc::SYS_kill, [i64::from(agent), 0, 0, 0, 0]);
    say("signal to the agent", &word(&outcome));
    for (name, number, arguments) in calls() {
        say(&format!("call {name}"), &word(&call(number, arguments)));
    }
    say("done", "waiting");
    std::thread::sleep(Duration::from_secs(300));
}

/// System calls that are refused, with arguments that would do no harm.
fn calls() -> Vec<(&'static str, i64, [i64; 5])> {
    let none = [0; 5];
    let disk = i64::from(FIRST_FD);
    let request = |number| [disk, number, 0, 0, 0];
    let family = |family: i32| [i64::from(family), i64::from(libc::SOCK_DGRAM), 0, 0, 0];
    vec![
        ("bpf", libc::SYS_bpf, none),
        ("io_uring_setup", libc::SYS_io_uring_setup, none),
        ("userfaultfd", libc::SYS_userfaultfd, none),
        ("perf_event_open", libc::SYS_perf_event_open, none),
        ("keyctl", libc::SYS_keyctl, none),
        ("add_key", libc::SYS_add_key, none),
        ("request_key", libc::SYS_request_key, none),
        ("ptrace", libc::SYS_ptrace, none),
        ("process_vm_readv", libc::SYS_process_vm_readv, none),
        ("process_vm_writev", libc::SYS_process_vm_writev, none),
        ("pidfd_open", libc::SYS_pidfd_open, none),
        ("pidfd_getfd", libc::SYS_pidfd_getfd, none),
        ("kcmp", libc::SYS_kcmp, none),
        ("open_by_handle_at", libc::SYS_open_by_handle_at, none),
        ("name_to_handle_at", libc::SYS_name_to_handle_at, none),
        ("fsopen", libc::SYS_fsopen, none),
        ("fsmount", libc::SYS_fsmount, none),
        ("move_mount", libc::SYS_move_mount, none),
        ("open_tree", libc::SYS_open_tree, none),
        ("mount", libc::SYS_mount, none),
        ("umount2", libc::SYS_umount2, none),
        ("pivot_root", libc::SYS_pivot_root, none),
        ("chroot", libc::SYS_chroot, none),
        (
            "unshare",
            libc::SYS_unshare,
            [i64::from(libc::CLONE_NEWUSER), 0, 0, 0, 0],
        ),
        ("setns", libc::SYS_setns, [-1, 0, 0, 0, 0]),
        ("clone3", libc::SYS_clone3, none),
        ("init_module", libc::SYS_init_module, none),
        ("kexec_load", libc::SYS_kexec_load, none),
        ("syslog", libc::SYS_syslog, none),
        ("socket inet", libc::SYS_socket, family(libc::AF_INET)),
        ("socket inet6", libc::SYS_socket, family(libc::AF_INET6)),
        ("socket netlink", libc::SYS_socket, family(libc::AF_NETLINK)),
        ("socket packet", libc::SYS_socket, family(libc::AF_PACKET)),
        ("socket vsock", libc::SYS_socket, family(libc::AF_VSOCK)),
        ("socket alg", libc::SYS_socket, family(libc::AF_ALG)),
        ("setuid", libc::SYS_setuid, none),
        (
            "fallocate past the end",
            libc::SYS_fallocate,
            [disk, i64::from(libc::FALLOC_FL_KEEP_SIZE), 0, 8 << 20, 0],
        ),
        (
            "ioctl FS_IOC_RESVSP64",
            libc::SYS_ioctl,
            request(0x4030_582a),
        ),
        ("ioctl SIOCSIFHWADDR", libc::SYS_ioctl, request(0x8924)),
        ("ioctl TUNSETPERSIST", libc::SYS_ioctl, request(0x4004_54cb)),
        (
            "setsockopt SO_ATTACH_FILTER",
            libc::SYS_setsockopt,
            [
                disk,
                libc::SOL_SOCKET.into(),
                libc::SO_ATTACH_FILTER.into(),
                0,
                0,
            ],
        ),
        ("io_setup", libc::SYS_io_setup, none),
        ("statmount", 457, none),
        ("listmount", 458, none),
        ("open_tree_attr", 467, none),
    ]
}

#[allow(
    unsafe_code,
    reason = "system calls that no library makes for good reason"
)]
fn call(number: i64, a: [i64; 5]) -> io::Result<()> {
    // SAFETY: numbers alone, and null for what would be a pointer: the kernel refuses.
    let result = unsafe { libc::syscall(number, a[0], a[1], a[2], a[3], a[4]) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn again(e: &io::Error) -> io::Error {
    e.raw_os_error()
        .map_or_else(|| e.kind().into(), io::Error::from_raw_os_error)
}

fn word(outcome: &io::Result<()>) -> String {
    match outcome {
        Ok(()) => "ok".into(),
        Err(e) => match e.raw_os_error() {
            Some(number) => format!("{:?}", nix::errno::Errno::from_raw(number)),
            None => e.to_string(),
        },
    }
}
