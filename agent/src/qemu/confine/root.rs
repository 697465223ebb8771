//! A root directory of QEMU's own: its program, libraries and data, read-only, a few
//! device nodes, what the plan places in it, and nothing else. No `/proc`, `/etc`,
//! `/tmp` or `/run`, so no other program's files or sockets.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink},
    path::{Component, Path, PathBuf},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::fs::{CWD, FileType, Mode, OFlags};

use crate::mounts;

/// Where programs, libraries and their data are. Secrets are in none of them.
const SYSTEM: [&str; 7] = [
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/bin",
    "/etc/ld.so.cache",
];
/// Device nodes that any program may expect.
const DEVICES: [&str; 4] = ["/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"];
/// The new root is put together over this directory. Every host has it, and the
/// launcher needs nothing below it any more.
const SITE: &str = "/sys";

/// What is in the root.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    /// The program, without links in its path.
    pub program: PathBuf,
    /// Files to copy in before it is sealed: a descriptor's number, and the path that
    /// the file gets.
    pub files: Vec<(i32, PathBuf)>,
    /// Device nodes that the program's user may open to read and write.
    pub devices: Vec<PathBuf>,
    /// The program's user.
    pub uid: u32,
    /// A library that a test has the program load.
    #[cfg(feature = "fault-points")]
    pub preload: Option<PathBuf>,
}

impl Contents {
    /// Files and directories of the host that can be read in the root.
    #[must_use]
    pub fn readable(&self) -> Vec<PathBuf> {
        let mut all: Vec<PathBuf> = SYSTEM.iter().map(PathBuf::from).collect();
        #[cfg(feature = "fault-points")]
        all.extend(self.preload.clone());
        if self.program.starts_with("/usr") {
            return all;
        }
        // A QEMU with a prefix of its own: /opt/qemu/{bin,lib,share}.
        let dir = self.program.parent();
        match dir.and_then(Path::parent) {
            Some(prefix) if dir.is_some_and(|d| d.ends_with("bin")) && prefix != Path::new("/") => {
                let parts = ["bin", "lib", "lib64", "libexec", "share"];
                all.extend(parts.map(|part| prefix.join(part)));
            }
            _ => all.push(self.program.clone()),
        }
        all
    }

    /// Files that are copied into the root.
    pub fn placed(&self) -> impl Iterator<Item = &PathBuf> {
        self.files.iter().map(|(_, path)| path)
    }

    /// Device nodes that are in the root.
    #[must_use]
    pub fn nodes(&self) -> Vec<PathBuf> {
        let usual = DEVICES.iter().map(PathBuf::from);
        usual.chain(self.devices.iter().cloned()).collect()
    }
}

/// Makes the root, seals it and enters it; the old one is out of reach then. The
/// process must be in a mount namespace of its own.
///
/// # Errors
/// What the kernel refuses, by name.
pub fn enter(contents: &Contents) -> io::Result<()> {
    let none = None::<&str>;
    // Nothing that is mounted here is seen outside.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(named("private mounts"))?;
    let mountinfo = fs::read_to_string("/proc/self/mountinfo")?;
    let site = Path::new(SITE);
    let size = room_for(&contents.files)?;
    tmpfs(
        site,
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        size,
    )?;
    for path in contents.readable() {
        show(&path, site, &mountinfo).map_err(named(&path.display().to_string()))?;
    }
    for (descriptor, path) in &contents.files {
        place(*descriptor, path, site).map_err(named(&path.display().to_string()))?;
    }
    devices(contents, site)?;
    seal(site, MsFlags::MS_NODEV | MsFlags::MS_NOEXEC)?;
    pivot(site)
}

/// The errors of a step say which it was.
fn named<E: Into<io::Error>>(what: &str) -> impl Fn(E) -> io::Error {
    let what = what.to_owned();
    move |e| {
        let e = e.into();
        io::Error::new(e.kind(), format!("private root: {what}: {e}"))
    }
}

fn below(site: &Path, path: &Path) -> PathBuf {
    site.join(path.strip_prefix("/").unwrap_or(path))
}

fn tmpfs(at: &Path, flags: MsFlags, bytes: u64) -> io::Result<()> {
    let options = format!("mode=755,size={bytes}");
    mount(
        Some("tmpfs"),
        at,
        Some("tmpfs"),
        flags,
        Some(options.as_str()),
    )
    .map_err(named("tmpfs"))
}

fn seal(at: &Path, more: MsFlags) -> io::Result<()> {
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID;
    let none = None::<&str>;
    mount(none, at, none, flags | more, none).map_err(named("read-only"))
}

/// Shows a file or directory of the host, with what is mounted below it, read-only. A
/// link (`/lib` is one to `usr/lib`) stays one. What the host does not have is left out.
fn show(path: &Path, site: &Path, mountinfo: &str) -> io::Result<()> {
    let target = below(site, path);
    let meta = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    if meta.is_symlink() {
        return symlink(fs::read_link(path)?, &target);
    }
    if meta.is_dir() {
        fs::create_dir_all(&target)?;
    } else {
        File::create(&target)?;
    }
    bind(path, &target, MsFlags::MS_NODEV)?;
    for mounted in mounts::below(mountinfo, path) {
        // One that another mount hides cannot be reached here either.
        if mounted.exists() {
            bind(&mounted, &below(site, &mounted), MsFlags::MS_NODEV)?;
        }
    }
    Ok(())
}

fn bind(source: &Path, target: &Path, more: MsFlags) -> io::Result<()> {
    let none = None::<&str>;
    mount(Some(source), target, none, MsFlags::MS_BIND, none)?;
    seal(target, more)
}

/// As much as the files that are to be placed need, and a little.
fn room_for(files: &[(i32, PathBuf)]) -> io::Result<u64> {
    let mut bytes = 1 << 20;
    for (descriptor, _) in files {
        let length = fs::metadata(format!("/proc/self/fd/{descriptor}"))?.len();
        bytes += length.next_multiple_of(4096);
    }
    Ok(bytes)
}

/// Copies what a descriptor holds: sealed memory cannot be bound to a path.
fn place(descriptor: i32, path: &Path, site: &Path) -> io::Result<()> {
    let plain = |c| matches!(c, Component::RootDir | Component::Normal(_));
    if !path.is_absolute() || !path.components().all(plain) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let target = below(site, path);
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut source = File::open(format!("/proc/self/fd/{descriptor}"))?;
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o444)
        .open(&target)?;
    io::copy(&mut source, &mut file)?;
    file.flush()
}

fn devices(contents: &Contents, site: &Path) -> io::Result<()> {
    let dir = site.join("dev");
    fs::create_dir(&dir)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    tmpfs(&dir, flags, 64 << 10)?;
    for path in DEVICES {
        device(Path::new(path), site, 0o666, 0).map_err(named(path))?;
    }
    for path in &contents.devices {
        let name = path.display().to_string();
        device(path, site, 0o600, contents.uid).map_err(named(&name))?;
    }
    seal(&dir, MsFlags::MS_NOEXEC)
}

/// A node of the host's device, the program's own; where none can be made (a container),
/// the host's node with the host's mode.
fn device(path: &Path, site: &Path, mode: u32, owner: u32) -> io::Result<()> {
    let host = fs::metadata(path)?;
    if !host.file_type().is_char_device() {
        return Err(io::Error::other("not a character device"));
    }
    let target = below(site, path);
    let made = rustix::fs::mknodat(
        CWD,
        &target,
        FileType::CharacterDevice,
        Mode::from_raw_mode(0o600),
        host.rdev(),
    );
    match made {
        Ok(()) => {
            chown(&target, Some(owner), Some(owner))?;
            fs::set_permissions(&target, fs::Permissions::from_mode(mode))
        }
        Err(rustix::io::Errno::PERM) => {
            File::create(&target)?;
            bind(path, &target, MsFlags::MS_NOEXEC)
        }
        Err(e) => Err(e.into()),
    }
}

/// Makes `site` the root, and lets go of the old one.
fn pivot(site: &Path) -> io::Result<()> {
    let open = |path: &Path| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty())
    };
    let old = open(Path::new("/"))?;
    let new = open(site)?;
    rustix::process::fchdir(&new)?;
    // The old root is mounted over the new one, and is what the detaching finds there.
    rustix::process::pivot_root(".", ".").map_err(named("pivot_root"))?;
    rustix::process::fchdir(&old)?;
    umount2(".", MntFlags::MNT_DETACH).map_err(named("detaching the old root"))?;
    rustix::process::chdir("/")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_elsewhere_brings_its_prefix_and_nothing_above_it() {
        let readable = |program: &str| {
            let contents = Contents {
                program: program.into(),
                ..Contents::default()
            };
            let all = contents.readable().into_iter();
            let more = all.skip(SYSTEM.len());
            more.map(|p| p.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(readable("/usr/bin/qemu-system-x86_64"), [""; 0]);
        assert_eq!(readable("/usr/local/bin/qemu"), [""; 0]);
        let prefix = ["bin", "lib", "lib64", "libexec", "share"].map(|p| format!("/opt/q/{p}"));
        assert_eq!(readable("/opt/q/bin/qemu"), prefix);
        assert_eq!(readable("/home/me/qemu"), ["/home/me/qemu"]);
        assert_eq!(readable("/sbin/bin"), ["/sbin/bin"]);
    }
}
