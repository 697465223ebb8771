//! The machine types of the installed QEMU: which it knows, and what `q35` stands for.

use std::{
    collections::BTreeSet,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::sync::Mutex;

use super::{
    qemu::names,
    run::{RunError, ask},
};

/// A host that starts hundreds of guests at once is slow to answer.
const LIMIT: Duration = Duration::from_secs(30);

/// What a QEMU can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineTypes {
    known: BTreeSet<String>,
    q35: Option<String>,
}

impl MachineTypes {
    /// From the answer to `-machine help`. Pure.
    fn parse(list: &str) -> Self {
        let alias = list.lines().find_map(|line| {
            let rest = line.strip_prefix("q35 ")?;
            let (_, target) = rest.rsplit_once("(alias of ")?;
            Some(target.split(')').next()?.to_owned())
        });
        let known = names(list);
        Self {
            q35: alias.filter(|target| known.contains(target)),
            known,
        }
    }

    /// Whether it has this one, under this name.
    #[must_use]
    pub fn knows(&self, name: &str) -> bool {
        self.known.contains(name)
    }

    /// What `q35` stands for, with its version: `pc-q35-10.0`.
    #[must_use]
    pub fn q35(&self) -> Option<&str> {
        self.q35.as_deref()
    }
}

/// Tells one program from what an upgrade puts in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileId([i64; 4], u64);

/// The installed QEMU, asked once until another is installed.
#[derive(Debug)]
pub struct Installed {
    binary: PathBuf,
    answer: Mutex<Option<(FileId, Arc<MachineTypes>)>>,
}

impl Installed {
    /// The one at this path.
    #[must_use]
    pub fn new(binary: &Path) -> Self {
        Self {
            binary: binary.to_owned(),
            answer: Mutex::default(),
        }
    }

    /// What it knows now. All who ask meanwhile wait for one answer.
    ///
    /// # Errors
    /// When it cannot be run or does not answer.
    pub async fn machine_types(&self) -> Result<Arc<MachineTypes>, RunError> {
        let mut answer = self.answer.lock().await;
        let id = self.id().await;
        if let (Some(id), Some((asked, types))) = (id, answer.as_ref())
            && id == *asked
        {
            return Ok(types.clone());
        }
        let told = ask(&self.binary, &["-machine", "help"], LIMIT).await?;
        let types = Arc::new(MachineTypes::parse(&told.output));
        *answer = id.map(|id| (id, types.clone()));
        Ok(types)
    }

    async fn id(&self) -> Option<FileId> {
        let file = tokio::fs::metadata(&self.binary).await.ok()?;
        let numbers = [
            file.mtime(),
            file.mtime_nsec(),
            file.ctime(),
            file.ctime_nsec(),
        ];
        Some(FileId(numbers, file.ino()))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn the_alias_has_a_version() {
        let list = "Supported machines are:\n\
                    pc                   Standard PC (i440FX + PIIX, 1996) (alias of pc-i440fx-10.0)\n\
                    pc-q35-9.2           Standard PC (Q35 + ICH9, 2009)\n\
                    q35                  Standard PC (Q35 + ICH9, 2009) (alias of pc-q35-10.0)\n\
                    pc-q35-10.0          Standard PC (Q35 + ICH9, 2009)\n";
        let types = MachineTypes::parse(list);
        assert_eq!(types.q35(), Some("pc-q35-10.0"));
        assert!(types.knows("pc-q35-9.2") && types.knows("q35"));
        assert!(!types.knows("pc-q35-8.2"));
        for without in ["", "q35 a machine\n", "q35 x (alias of pc-q35-10.0)\n"] {
            assert_eq!(MachineTypes::parse(without).q35(), None, "{without}");
        }
    }

    #[tokio::test]
    async fn another_program_in_its_place_is_asked_anew() {
        let dir = tempfile::tempdir().unwrap();
        let binary = dir.path().join("qemu");
        let install = |version: &str| {
            let new = dir.path().join("new");
            let asked = dir.path().join("asked");
            let script = format!(
                "#!/bin/sh\necho >>{}\necho 'q35 PC (alias of pc-q35-{version})'\n\
                 echo 'pc-q35-{version} PC'\n",
                asked.display()
            );
            fs::write(&new, script).unwrap();
            fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
            fs::rename(new, &binary).unwrap();
        };
        let installed = Installed::new(&binary);
        assert!(matches!(
            installed.machine_types().await,
            Err(RunError::NotFound(_))
        ));
        for version in ["9.2", "10.0"] {
            install(version);
            for _ in 0..3 {
                let types = installed.machine_types().await.unwrap();
                assert_eq!(types.q35(), Some(&*format!("pc-q35-{version}")));
            }
        }
        let asked = fs::read_to_string(dir.path().join("asked")).unwrap();
        assert_eq!(asked.lines().count(), 2, "once each");
    }
}
