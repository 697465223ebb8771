//! The agent's directories: what is in them is the agent's alone, whoever made them
//! first and whatever the umask was then.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use tracing::warn;

use super::ServeError;
use crate::{config::Config, paths::Paths};

/// What is made from here on has no mode bits for others. A file that others are to
/// reach (the API's socket) is given to them afterwards, by name.
pub(super) fn set_umask() {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
}

/// Makes the directories, and takes the rights of others from what is in them.
///
/// The run directory may be passed through, so that a group can be given the API's
/// socket; all others are root's alone.
///
/// # Errors
/// [`ServeError::Foreign`] when one of them belongs to somebody else: its owner could
/// put in it what the agent then believes.
pub(super) fn prepare(config: &Config, paths: &Paths) -> Result<(), ServeError> {
    own(&config.run_dir, 0o711)?;
    for dir in [
        &config.state_dir,
        &paths.instances(),
        &paths.volumes(),
        &paths.images(),
        &paths.runs(),
    ] {
        own(dir, 0o700)?;
    }
    close_to_others(&config.state_dir);
    close_to_others(&paths.runs());
    Ok(())
}

/// Opens the lock of a directory. Its mode matters: whoever can open it can lock it.
///
/// # Errors
/// [`ServeError::Locked`] when another agent has it.
pub(super) fn lock(dir: &Path) -> Result<File, ServeError> {
    let path = dir.join("lock");
    let fail = fail(&path);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(&fail)?;
    // One that an earlier version made could be opened by everybody.
    file.set_permissions(fs::Permissions::from_mode(0o600))
        .map_err(&fail)?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(ServeError::Locked {
            dir: dir.to_owned(),
        }),
        Err(e) => Err(fail(e.into())),
    }
}

fn fail(path: &Path) -> impl Fn(io::Error) -> ServeError {
    let path = path.to_owned();
    move |source| ServeError::File {
        path: path.clone(),
        source,
    }
}

/// Makes a directory with all that is missing above it, or takes over one that is
/// there: it must be the agent's user's, or root's, and gets the mode.
fn own(path: &Path, mode: u32) -> Result<(), ServeError> {
    let missing: Vec<&Path> = path.ancestors().take_while(|p| !p.exists()).collect();
    for dir in missing.into_iter().rev() {
        fs::DirBuilder::new()
            .mode(mode)
            .recursive(true)
            .create(dir)
            .map_err(fail(dir))?;
        // Not what the umask leaves of it.
        set_mode(dir, mode)?;
    }
    let found = fs::metadata(path).map_err(fail(path))?;
    let us = rustix::process::geteuid().as_raw();
    if found.uid() != us && found.uid() != 0 {
        return Err(ServeError::Foreign {
            path: path.to_owned(),
            uid: found.uid(),
        });
    }
    let before = found.mode() & 0o7777;
    if before != mode {
        set_mode(path, mode)?;
        if before & 0o022 != 0 {
            let path = path.display();
            warn!(
                "{path} could be written by others until now (mode {before:o}): look through it for what is not the agent's"
            );
        }
    }
    Ok(())
}

fn set_mode(path: &Path, mode: u32) -> Result<(), ServeError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(fail(path))
}

/// Takes the rights of group and others from everything below a directory that nobody
/// else can enter. Links are left alone. What cannot be changed is logged: the
/// directory above it is closed.
fn close_to_others(dir: &Path) {
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        if let Err(e) = close_entries(&dir, &mut dirs) {
            warn!("{}: {e}", dir.display());
        }
    }
}

fn close_entries(dir: &Path, dirs: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let meta = match fs::symlink_metadata(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        if meta.is_symlink() {
            continue;
        }
        let mode = meta.mode() & 0o7777;
        if mode & 0o077 != 0 {
            let closed = fs::Permissions::from_mode(mode & 0o700);
            if let Err(e) = fs::set_permissions(&path, closed) {
                warn!("{} stays open to others: {e}", path.display());
            }
        }
        if meta.is_dir() {
            dirs.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn modes_do_not_depend_on_who_made_a_directory_first() {
        let top = tempfile::tempdir().unwrap();
        let config = Config {
            state_dir: top.path().join("a/state"),
            run_dir: top.path().join("b/run"),
            ..Config::default()
        };
        let paths = Paths::new(&config);
        let old = paths.instances().join("x");
        fs::create_dir_all(&old).unwrap();
        let files = [old.join("root.qcow2"), config.state_dir.join("agent.db")];
        for file in &files {
            fs::write(file, "").unwrap();
            fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
        }
        for dir in [&config.state_dir, &paths.instances(), &old] {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).unwrap();
        }
        let elsewhere = top.path().join("elsewhere");
        fs::write(&elsewhere, "").unwrap();
        fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o644)).unwrap();
        std::os::unix::fs::symlink(&elsewhere, old.join("link")).unwrap();

        prepare(&config, &paths).unwrap();
        for dir in [
            &config.state_dir,
            &paths.instances(),
            &paths.volumes(),
            &paths.images(),
            &paths.runs(),
            &old,
        ] {
            assert_eq!(mode(dir), 0o700, "{dir:?}");
        }
        for file in &files {
            assert_eq!(mode(file), 0o600, "{file:?}");
        }
        assert_eq!(mode(&config.run_dir), 0o711);
        assert_eq!(mode(&elsewhere), 0o644, "what a link names is not ours");

        let run_lock = config.run_dir.join("lock");
        fs::write(&run_lock, "").unwrap();
        fs::set_permissions(&run_lock, fs::Permissions::from_mode(0o644)).unwrap();
        let held = lock(&config.run_dir).unwrap();
        assert_eq!(mode(&run_lock), 0o600);
        assert!(matches!(
            lock(&config.run_dir),
            Err(ServeError::Locked { .. })
        ));
        drop(held);
    }

    #[test]
    fn a_directory_of_somebody_else_is_refused() {
        if !rustix::process::geteuid().is_root() {
            skip::skip!("root", "only root can give files away");
        }
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("state");
        fs::create_dir(&dir).unwrap();
        std::os::unix::fs::chown(&dir, Some(4711), None).unwrap();
        let refused = own(&dir, 0o700).unwrap_err();
        assert!(
            matches!(refused, ServeError::Foreign { uid: 4711, .. }),
            "{refused}"
        );
    }
}
