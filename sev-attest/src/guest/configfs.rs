//! configfs-tsm: a directory made is a request, its files are question and answer (Linux,
//! Documentation/ABI/testing/configfs-tsm-report).

use std::fs;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use super::error::GuestError;
use super::{GuestReport, ReportProvider, ReportRequest, Vmpl};

/// Where requests are made.
const ROOT: &str = "/sys/kernel/config/tsm/report";
/// The one provider whose answers are SEV-SNP reports.
const PROVIDER: &str = "sev_guest";
/// Attempts at an answer that nobody else disturbed.
const ATTEMPTS: u32 = 3;

/// Report and certificate table as the kernel gives them.
type Answer = (Vec<u8>, Vec<u8>);

/// What is done to the kernel's tree. The one other implementation is that of the tests, which
/// behaves as the kernel does.
pub trait Tree {
    /// Makes a directory.
    ///
    /// # Errors
    /// As `mkdir`.
    fn make(&mut self, path: &Path) -> io::Result<()>;
    /// Removes an empty directory: in configfs, one with attributes.
    ///
    /// # Errors
    /// As `rmdir`.
    fn remove(&mut self, path: &Path) -> io::Result<()>;
    /// Reads a whole file.
    ///
    /// # Errors
    /// As `read`.
    fn read(&mut self, path: &Path) -> io::Result<Vec<u8>>;
    /// Writes a whole attribute at once. The file is there already.
    ///
    /// # Errors
    /// As `write`.
    fn write(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Whether there is a directory.
    fn is_directory(&self, path: &Path) -> bool;
}

/// The file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct Files;

impl Tree for Files {
    fn make(&mut self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn read(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn write(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = fs::File::options().write(true).open(path)?;
        // configfs takes a binary attribute when the file is closed, and a text one by one write
        let written = file.write(bytes)?;
        if written == bytes.len() {
            Ok(())
        } else {
            Err(ErrorKind::WriteZero.into())
        }
    }

    fn is_directory(&self, path: &Path) -> bool {
        path.is_dir()
    }
}

/// Reports by configfs-tsm.
#[derive(Debug)]
pub struct ConfigfsTsm<T = Files> {
    root: PathBuf,
    tree: T,
}

impl Default for ConfigfsTsm {
    fn default() -> Self {
        Self::new(ROOT.into(), Files)
    }
}

impl<T: Tree> ConfigfsTsm<T> {
    /// Requests are made in `root` of `tree`.
    #[must_use]
    pub fn new(root: PathBuf, tree: T) -> Self {
        Self { root, tree }
    }

    /// Whether the kernel's TSM reports are SEV-SNP's: only a request tells, so one is made and
    /// removed.
    ///
    /// # Errors
    /// Why they are not.
    pub fn serves(&mut self) -> Result<(), GuestError> {
        let path = self.make()?;
        let provider = self.provider(&path);
        self.removed(path, provider)
    }

    /// Refuses another provider than SEV-SNP's.
    fn provider(&mut self, path: &Path) -> Result<(), GuestError> {
        let provider = self.read(path, "provider")?;
        let provider = String::from_utf8_lossy(&provider).trim().to_owned();
        if provider == PROVIDER {
            Ok(())
        } else {
            Err(GuestError::OtherProvider(provider))
        }
    }

    /// Removes a request whatever became of it; an answer counts more than a leftover.
    fn removed<A>(
        &mut self,
        path: PathBuf,
        answer: Result<A, GuestError>,
    ) -> Result<A, GuestError> {
        match self.tree.remove(&path) {
            Err(source) if answer.is_ok() => Err(GuestError::File { path, source }),
            _ => answer,
        }
    }

    /// Makes the request's directory, under a name that is nobody else's.
    fn make(&mut self) -> Result<PathBuf, GuestError> {
        if !self.tree.is_directory(&self.root) {
            return Err(GuestError::NoConfigfs(self.root.clone()));
        }
        loop {
            let random = RandomState::new().build_hasher().finish();
            let name = format!("sev-attest-{}-{random:016x}", std::process::id());
            let path = self.root.join(name);
            match self.tree.make(&path) {
                Ok(()) => return Ok(path),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                // ENXIO: no provider is registered
                Err(error) if error.raw_os_error() == Some(6) => {
                    return Err(GuestError::NoProvider(self.root.clone()));
                }
                Err(source) => return Err(GuestError::File { path, source }),
            }
        }
    }

    fn read(&mut self, request: &Path, name: &str) -> Result<Vec<u8>, GuestError> {
        let path = request.join(name);
        let failed = |source| GuestError::File {
            path: path.clone(),
            source,
        };
        self.tree.read(&path).map_err(failed)
    }

    fn write(&mut self, request: &Path, name: &str, bytes: &[u8]) -> Result<(), GuestError> {
        let path = request.join(name);
        let failed = |source| GuestError::File {
            path: path.clone(),
            source,
        };
        self.tree.write(&path, bytes).map_err(failed)
    }

    fn number(&mut self, request: &Path, name: &str) -> Result<u64, GuestError> {
        let bytes = self.read(request, name)?;
        let text = String::from_utf8_lossy(&bytes);
        text.trim().parse().map_err(|_| GuestError::File {
            path: request.join(name),
            source: io::Error::new(ErrorKind::InvalidData, "not a number"),
        })
    }

    /// The level to ask at: the wished one, or the lowest that this kernel may.
    fn level(&mut self, path: &Path, wished: Option<Vmpl>) -> Result<u64, GuestError> {
        if let Some(vmpl) = wished {
            return Ok(u64::from(vmpl.level()));
        }
        match self.number(path, "privlevel_floor") {
            Err(GuestError::File { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(0),
            floor => floor,
        }
    }

    /// One question and answer. `None` where somebody else wrote meanwhile: `generation` counts
    /// the writes.
    fn ask(&mut self, path: &Path, request: &ReportRequest) -> Result<Option<Answer>, GuestError> {
        let level = self.level(path, request.vmpl)?;
        let before = self.number(path, "generation")?;
        self.write(path, "privlevel", level.to_string().as_bytes())?;
        self.write(path, "inblob", &request.data)?;
        let answer = match self.read(path, "outblob") {
            Err(GuestError::File { source, .. }) if source.kind() == ErrorKind::WouldBlock => {
                return Ok(None);
            }
            answer => answer?,
        };
        let table = if request.extended {
            self.read(path, "auxblob")?
        } else {
            Vec::new()
        };
        let after = self.number(path, "generation")?;
        Ok((after == before.wrapping_add(2)).then_some((answer, table)))
    }

    fn ask_until_undisturbed(
        &mut self,
        path: &Path,
        request: &ReportRequest,
    ) -> Result<GuestReport, GuestError> {
        self.provider(path)?;
        for _ in 0..ATTEMPTS {
            if let Some((answer, table)) = self.ask(path, request)? {
                return GuestReport::checked(&answer, table, request);
            }
        }
        Err(GuestError::Raced {
            path: path.to_owned(),
            attempts: ATTEMPTS,
        })
    }
}

impl<T: Tree> ReportProvider for ConfigfsTsm<T> {
    fn name(&self) -> String {
        self.root.display().to_string()
    }

    fn report(&mut self, request: &ReportRequest) -> Result<GuestReport, GuestError> {
        let path = self.make()?;
        let answer = self.ask_until_undisturbed(&path, request);
        self.removed(path, answer)
    }
}
