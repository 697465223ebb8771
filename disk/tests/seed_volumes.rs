//! Volumes in a guest over boots: the seed's own boothook, run against a real fstab, real disks
//! and real mounts in a mount namespace. What systemd makes of the lines, the end-to-end test of
//! a Debian guest shows.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod seed_support;

use std::{fs, path::Path, process::Command};

use disk::seed::{Filesystem, SeedSpec, SeedVolume, render};
use seed_support::{run, spec};

/// Two volumes, as the agent names them.
const A: &str = "00112233445566aa";
const B: &str = "00112233445566bb";

fn device(serial: &str) -> String {
    format!("/dev/disk/by-id/virtio-{serial}")
}

/// As an agent before the mark wrote it, by cloud-init's module at the first boot.
fn old_line(serial: &str, at: &str, comment: &str) -> String {
    let device = device(serial);
    format!("{device}\t{at}\text4\tdefaults,nofail,discard,x-systemd.growfs{comment}\t0\t2\n")
}

/// A guest's directory `/etc` and its disks.
struct Guest {
    dir: tempfile::TempDir,
    loops: Vec<String>,
    /// What its volumes are to be formatted as.
    fs: Filesystem,
}

impl Drop for Guest {
    fn drop(&mut self) {
        for device in &self.loops {
            run(Command::new("losetup").args(["--detach", device]));
        }
    }
}

/// What is true after a boot.
struct Boot {
    fstab: String,
    /// `serial mount type` of each volume's mount, sorted.
    mounts: Vec<String>,
    /// What the commands after the boothook printed.
    output: String,
}

impl Guest {
    fn new(fstab: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["etc", "dev/disk/by-id"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("etc/fstab"), fstab).unwrap();
        let loops = Vec::new();
        let fs = Filesystem::Ext4;
        let mut guest = Guest { dir, loops, fs };
        for serial in [A, B] {
            guest.plug(serial);
        }
        guest
    }

    fn disk(&self, serial: &str) -> std::path::PathBuf {
        self.dir.path().join(serial)
    }

    fn link(&self, serial: &str) -> std::path::PathBuf {
        let by_id = self.dir.path().join("dev/disk/by-id");
        by_id.join(format!("virtio-{serial}"))
    }

    fn plug(&mut self, serial: &str) {
        let file = self.disk(serial);
        if !file.exists() {
            let size = disk::ByteSize::from_mib(64);
            disk::create_volume(&file, size, disk::Format::Raw).unwrap();
        }
        let device = run(Command::new("losetup").args(["--find", "--show"]).arg(file));
        let device = device.trim().to_owned();
        std::os::unix::fs::symlink(&device, self.link(serial)).unwrap();
        self.loops.push(device);
    }

    fn unplug(&mut self, serial: &str) {
        let device = fs::read_link(self.link(serial)).unwrap();
        fs::remove_file(self.link(serial)).unwrap();
        run(Command::new("losetup").arg("--detach").arg(&device));
        self.loops.retain(|l| Path::new(l) != device);
    }

    /// Boots with these volumes in the seed: what fstab says is mounted first, as a guest's
    /// system does, then the boothook runs, then `commands`.
    fn boot_then(&self, volumes: &[(&str, &str)], commands: &str) -> Boot {
        let volumes = volumes.iter().map(|(serial, mount)| SeedVolume {
            serial: (*serial).to_owned(),
            mount: mount.parse().unwrap(),
            fs: self.fs,
        });
        let spec = SeedSpec {
            volumes: volumes.collect(),
            ..spec()
        };
        let hook = self.dir.path().join("hook");
        fs::write(&hook, boothook(&render(&spec).unwrap().user_data)).unwrap();
        // Loop devices are the host's; everything else of the guest lives in its directory.
        let script = format!(
            "set -e\n\
             mount --make-rprivate /\n\
             mount -t tmpfs t /mnt\n\
             for d in null zero loop-control {loops}; do cp -a /dev/$d {dir}/dev/; done\n\
             cp -a /etc/alternatives /etc/mtab {dir}/etc/\n\
             mount --bind {dir}/etc /etc\n\
             mount --bind {dir}/dev /dev\n\
             mkdir -p $(awk '$2 ~ \"^/mnt/\" {{ print $2 }}' /etc/fstab) /mnt\n\
             mount -a 2>/dev/null || :\n\
             sh {dir}/hook >{dir}/log 2>&1\n\
             grep '^/dev/loop.* /mnt/' /proc/mounts >{dir}/mounts || :\n\
             {commands}\n",
            dir = self.dir.path().display(),
            loops = self
                .loops
                .iter()
                .map(|l| l.trim_start_matches("/dev/"))
                .collect::<Vec<_>>()
                .join(" "),
        );
        let output = run(Command::new("unshare").args(["--mount", "sh", "-c", &script]));
        let read = |name: &str| fs::read_to_string(self.dir.path().join(name)).unwrap();
        let mut mounts: Vec<String> = read("mounts")
            .lines()
            .map(|line| {
                let fields: Vec<&str> = line.split(' ').collect();
                let serial = [A, B].into_iter().find(|serial| {
                    fs::read_link(self.link(serial)).is_ok_and(|to| to == Path::new(fields[0]))
                });
                format!(
                    "{} {} {}",
                    serial.unwrap_or(fields[0]),
                    fields[1],
                    fields[2]
                )
            })
            .collect();
        mounts.sort();
        Boot {
            fstab: read("etc/fstab"),
            mounts,
            output,
        }
    }

    fn boot(&self, volumes: &[(&str, &str)]) -> Boot {
        self.boot_then(volumes, "")
    }
}

/// The agent's boothook in a seed's user data.
fn boothook(user_data: &str) -> &str {
    let (_, part) = user_data
        .split_once("filename=\"crn-volumes.sh\"\n\n")
        .unwrap();
    part.split("\n--=_").next().unwrap()
}

/// The lines of fstab that have to do with a place.
fn lines_for<'a>(fstab: &'a str, at: &str) -> Vec<&'a str> {
    let about = |line: &&str| !line.starts_with('#') && line.split_whitespace().nth(1) == Some(at);
    fstab.lines().filter(about).collect()
}

const DATA: &str = "/mnt/data";

#[test]
fn a_new_volume_is_formatted_once_and_mounted() {
    let root = "# the image's own\nUUID=0-1 / ext4 errors=remount-ro 0 1";
    let guest = Guest::new(root);
    let volumes = [(A, DATA), (B, "/mnt/data/sub")];
    let boot = guest.boot_then(&volumes, "echo kept >/mnt/data/sub/file");
    let both = [format!("{A} {DATA} ext4"), format!("{B} {DATA}/sub ext4")];
    assert_eq!(boot.mounts, both);
    assert!(
        boot.fstab.starts_with(&format!("{root}\n")),
        "{}",
        boot.fstab
    );
    for at in [DATA, "/mnt/data/sub"] {
        let [line] = lines_for(&boot.fstab, at)[..] else {
            panic!("{}", boot.fstab)
        };
        let fields: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(fields[2], "auto");
        assert!(
            fields[3].contains("nofail") && !fields[3].contains("growfs"),
            "{line}"
        );
    }
    // Nothing is done twice, and the data stays.
    let again = guest.boot_then(&volumes, "cat /mnt/data/sub/file");
    assert_eq!((again.fstab, again.mounts), (boot.fstab, boot.mounts));
    assert_eq!(again.output, "kept\n");
}

#[test]
fn a_new_volume_gets_the_file_system_that_was_asked_for() {
    let mut guest = Guest::new("");
    guest.fs = Filesystem::Xfs;
    guest.unplug(A);
    let size = disk::ByteSize::from_mib(guest.fs.least_mib());
    disk::grow(&guest.disk(A), disk::Format::Raw, size).unwrap();
    guest.plug(A);
    let boot = guest.boot_then(&[(A, DATA)], "echo kept >/mnt/data/file");
    assert_eq!(boot.mounts, [format!("{A} {DATA} xfs")]);
    // What is there stays, whatever is asked for later.
    guest.fs = Filesystem::Ext4;
    let again = guest.boot_then(&[(A, DATA)], "cat /mnt/data/file");
    assert_eq!((again.mounts, again.output), (boot.mounts, "kept\n".into()));
}

/// A guest's image may not have the tools: it is said, and nothing else is made instead.
#[test]
fn a_file_system_that_cannot_be_made_is_told_of() {
    let mut guest = Guest::new("");
    // No room for it here, which mkfs finds, where it is.
    guest.fs = Filesystem::Btrfs;
    let boot = guest.boot(&[(A, DATA)]);
    assert!(boot.mounts.is_empty(), "{:?}", boot.mounts);
    let log = fs::read_to_string(guest.dir.path().join("log")).unwrap();
    assert!(log.contains("has no file system: mkfs.btrfs"), "{log}");
    // Another one is taken by the next boot.
    guest.fs = Filesystem::Ext4;
    assert_eq!(
        guest.boot(&[(A, DATA)]).mounts,
        [format!("{A} {DATA} ext4")]
    );
}

#[test]
fn a_swapped_volume_is_mounted_in_the_place_of_the_other() {
    let mut guest = Guest::new("");
    guest.boot_then(&[(A, DATA)], "echo a >/mnt/data/file");
    guest.unplug(A);
    let boot = guest.boot_then(&[(B, DATA)], "ls /mnt/data");
    assert_eq!(boot.mounts, [format!("{B} {DATA} ext4")]);
    assert_eq!(lines_for(&boot.fstab, DATA).len(), 1, "{}", boot.fstab);
    assert!(!boot.fstab.contains(A), "{}", boot.fstab);
    assert!(!boot.output.contains("file"));
}

#[test]
fn two_volumes_change_places() {
    let guest = Guest::new("");
    let other = "/mnt/other";
    guest.boot_then(&[(A, DATA), (B, other)], "echo a >/mnt/data/file");
    let boot = guest.boot_then(&[(B, DATA), (A, other)], "cat /mnt/other/file");
    let both = [format!("{A} {other} ext4"), format!("{B} {DATA} ext4")];
    assert_eq!(boot.mounts, both);
    assert_eq!(boot.output, "a\n");
}

#[test]
fn nothing_is_left_of_a_detached_volume() {
    let root = "UUID=0-1 / ext4 defaults 0 1\n";
    let mut guest = Guest::new(root);
    guest.boot(&[(A, DATA), (B, "/mnt/b")]);
    guest.unplug(A);
    assert!(!guest.boot(&[(B, "/mnt/b")]).fstab.contains(A));
    guest.unplug(B);
    let boot = guest.boot(&[]);
    assert_eq!(boot.fstab, root);
    assert!(boot.mounts.is_empty());
}

#[test]
fn a_moved_volume_is_mounted_at_one_place() {
    let guest = Guest::new("");
    guest.boot_then(&[(A, DATA)], "echo a >/mnt/data/file");
    // The system has mounted it at the old place when the boothook comes.
    let boot = guest.boot_then(&[(A, "/mnt/srv/pg")], "cat /mnt/srv/pg/file");
    assert_eq!(boot.mounts, [format!("{A} /mnt/srv/pg ext4")]);
    assert_eq!(boot.output, "a\n");
    assert!(lines_for(&boot.fstab, DATA).is_empty(), "{}", boot.fstab);
}

#[test]
fn lines_of_an_older_agent_are_its_own() {
    for comment in ["", ",comment=cloudconfig"] {
        // The same volume, now right: replaced.
        let guest = Guest::new(&old_line(A, DATA, comment));
        guest.boot(&[(A, DATA)]);
        let guest_again = guest.boot(&[(A, DATA)]);
        assert_eq!(lines_for(&guest_again.fstab, DATA).len(), 1);
        assert!(
            !guest_again.fstab.contains("growfs"),
            "{}",
            guest_again.fstab
        );

        // Swapped, moved, detached.
        let left = old_line(A, DATA, comment) + &old_line(B, DATA, "");
        let boot = Guest::new(&left).boot(&[(B, DATA), (A, "/mnt/a")]);
        let both = [format!("{A} /mnt/a ext4"), format!("{B} {DATA} ext4")];
        assert_eq!(boot.mounts, both);
        assert_eq!(boot.fstab.lines().count(), 2, "{}", boot.fstab);
        assert!(!boot.fstab.contains("growfs"));
        assert_eq!(Guest::new(&left).boot(&[]).fstab, "");
    }
}

#[test]
fn any_file_system_that_is_there_is_mounted() {
    for (make, kind) in [("mkfs.xfs", "xfs"), ("mkfs.ext3", "ext3")] {
        let mut guest = Guest::new("");
        // XFS has a smallest size.
        let larger = disk::ByteSize::from_mib(400);
        guest.unplug(A);
        disk::grow(&guest.disk(A), disk::Format::Raw, larger).unwrap();
        run(Command::new(make).arg("-q").arg(guest.disk(A)));
        guest.plug(A);
        for _ in 0..2 {
            let boot = guest.boot(&[(A, DATA)]);
            assert_eq!(boot.mounts, [format!("{A} {DATA} {kind}")]);
        }
    }
}

#[test]
fn a_disk_with_anything_on_it_is_not_formatted() {
    for make in ["mkswap", "sfdisk"] {
        let mut guest = Guest::new("");
        guest.unplug(A);
        let script = "echo ',,L' | sfdisk -q \"$1\"";
        match make {
            "sfdisk" => run(Command::new("sh")
                .args(["-c", script, "sh"])
                .arg(guest.disk(A))),
            make => run(Command::new(make).arg(guest.disk(A))),
        };
        let before = fs::read(guest.disk(A)).unwrap();
        guest.plug(A);
        assert!(guest.boot(&[(A, DATA)]).mounts.is_empty());
        assert!(fs::read(guest.disk(A)).unwrap() == before, "{make}");
    }
}

/// Shown with XFS alone: an ext4 that is mounted grows with `CAP_SYS_RESOURCE` only, which a test
/// machine need not have. That `resize2fs` does it in a guest, called by hand, is in `e2e_live`.
#[test]
fn a_volume_that_grew_is_filled() {
    let mut guest = Guest::new("");
    guest.unplug(A);
    for mib in [400, 600] {
        let size = disk::ByteSize::from_mib(mib);
        disk::grow(&guest.disk(A), disk::Format::Raw, size).unwrap();
        if mib == 400 {
            run(Command::new("mkfs.xfs").arg("-q").arg(guest.disk(A)));
        }
        guest.plug(A);
        let boot = guest.boot_then(&[(A, DATA)], "df --output=size -m /mnt/data | tail -1");
        let size: u32 = boot.output.trim().parse().unwrap();
        assert!((mib - 100..mib).contains(&size), "{size} MiB of {mib}");
        guest.unplug(A);
    }
}

#[test]
fn what_the_user_wrote_stays() {
    let by_hand = format!("{} /mnt/mine ext4 noatime,nofail 0 2\n", device(B));
    let guest = Guest::new(&format!("tmpfs /mnt/tmp tmpfs size=1m 0 0\n{by_hand}"));
    let boot = guest.boot(&[(A, DATA)]);
    assert!(boot.fstab.contains(&by_hand), "{}", boot.fstab);

    // The volume under another name, with other options: as good as the agent's line.
    const UUID: &str = "6d4a42ae-3c1e-4b1f-9e40-0b54a5f1a1b2";
    let theirs = format!("UUID={UUID} {DATA} ext4 noatime,nofail 0 2\n");
    let guest = Guest::new(&theirs);
    run(Command::new("mkfs.ext4")
        .args(["-q", "-F", "-U", UUID])
        .arg(guest.disk(B)));
    // As udev does it.
    let by_uuid = guest.dir.path().join("dev/disk/by-uuid");
    fs::create_dir(&by_uuid).unwrap();
    let to = fs::read_link(guest.link(B)).unwrap();
    std::os::unix::fs::symlink(to, by_uuid.join(UUID)).unwrap();
    let boot = guest.boot(&[(B, DATA)]);
    assert_eq!(boot.fstab, theirs);
    assert_eq!(boot.mounts, [format!("{B} {DATA} ext4")]);

    // It names a disk that is gone, at a volume's place: a comment, and the volume is there.
    let gone = Guest::new(&format!("UUID=00-00 {DATA} ext4 defaults 0 2\n"));
    let boot = gone.boot(&[(A, DATA)]);
    assert_eq!(boot.mounts, [format!("{A} {DATA} ext4")]);
    assert!(boot.fstab.starts_with("# ") && boot.fstab.contains("UUID=00-00"));
    assert_eq!(lines_for(&boot.fstab, DATA).len(), 1);
}

#[test]
fn a_volume_that_does_not_come_holds_nothing_up() {
    let mut guest = Guest::new("");
    guest.unplug(A);
    let start = std::time::Instant::now();
    let boot = guest.boot(&[(A, DATA), (B, "/mnt/b")]);
    assert!(start.elapsed().as_secs() < 20);
    assert_eq!(boot.mounts, [format!("{B} /mnt/b ext4")]);
    assert_eq!(lines_for(&boot.fstab, DATA).len(), 1, "it may come later");
}
