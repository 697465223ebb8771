//! Equality with sev-snp-measure, the reference implementation: against a committed table of its
//! digests, and against the tool itself, installed from PyPI for the run.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use sev_attest::measure::{
    CPU_TYPES, CpuSignature, Firmware, KernelHashes, Launch, MeasureError, Mode, Variants, Vmm,
};

use crate::support::{AMD_SEV, OVMF_X64, firmware, noise};

/// The version that the committed table was made with.
const TOOL: &str = "sev-snp-measure==0.0.13";
const TABLE: &str = "tests/measure/data/reference.tsv";

/// One digest to be computed.
#[derive(Clone)]
struct Case {
    mode: Mode,
    /// Name of the image: a synthetic one, or a file name of Debian's `ovmf`.
    firmware: String,
    vmm: Vmm,
    cpu: Cpu,
    vcpus: u32,
    features: u64,
    kernel: bool,
    initrd: bool,
    append: Option<&'static str>,
}

#[derive(Clone, Copy)]
enum Cpu {
    Type(&'static str),
    Signature(u32),
}

impl Cpu {
    fn signature(self) -> CpuSignature {
        match self {
            Self::Type(name) => CpuSignature::of_type(name).unwrap(),
            Self::Signature(signature) => CpuSignature(signature),
        }
    }
}

impl Case {
    fn new(mode: Mode, firmware: &str) -> Self {
        Self {
            mode,
            firmware: firmware.to_owned(),
            vmm: Vmm::Qemu,
            cpu: Cpu::Type("EPYC-v4"),
            vcpus: 2,
            features: mode.default_features(),
            kernel: false,
            initrd: false,
            append: None,
        }
    }

    fn vmm_name(&self) -> &'static str {
        self.vmm.name()
    }

    /// Name in the table.
    fn name(&self) -> String {
        let cpu = match self.cpu {
            Cpu::Type(name) => name.to_owned(),
            Cpu::Signature(signature) => format!("{signature:#x}"),
        };
        let boot = match (self.kernel, self.initrd) {
            (false, _) => "disk".to_owned(),
            (true, initrd) => {
                format!(
                    "kernel{} {:?}",
                    if initrd { "+initrd" } else { "" },
                    self.append
                )
            }
        };
        let Self {
            mode,
            firmware,
            vcpus,
            features,
            ..
        } = self;
        format!(
            "{mode} {firmware} {} {cpu} x{vcpus} {features:#x} {boot}",
            self.vmm_name()
        )
    }

    fn ours(&self, files: &Files) -> String {
        let image = std::fs::read(&files.firmware[&self.firmware]).unwrap();
        let firmware = Firmware::parse(image).unwrap();
        let initrd = self.initrd.then(|| std::fs::read(&files.initrd).unwrap());
        let kernel = std::fs::read(&files.kernel).unwrap();
        let boot = KernelHashes::new(&kernel, initrd.as_deref(), self.append.unwrap_or_default());
        let boots = [boot.unwrap()];
        let boots = if self.kernel { &boots[..] } else { &[] };
        let variants = Variants {
            boots,
            cpus: &[self.cpu.signature()],
            vcpus: &[self.vcpus],
        };
        let launch = Launch::new(&firmware, self.mode)
            .vmm(self.vmm)
            .features(self.features);
        let measured = launch
            .measure(&variants)
            .unwrap_or_else(|e| panic!("{}: {e}", self.name()));
        hex::encode(measured[0].digest)
    }

    fn json(&self, files: &Files) -> String {
        let path = |path: &Path| serde_json::Value::from(path.to_str().unwrap());
        let only = |given: bool, value: serde_json::Value| given.then_some(value);
        serde_json::json!({
            "mode": self.mode.name(),
            "firmware": path(&files.firmware[&self.firmware]),
            "vmm": self.vmm_name(),
            "cpu": match self.cpu {
                Cpu::Type(name) => serde_json::Value::from(name),
                Cpu::Signature(signature) => serde_json::Value::from(signature),
            },
            "vcpus": self.vcpus,
            "features": self.features,
            "kernel": only(self.kernel, path(&files.kernel)),
            "initrd": only(self.initrd, path(&files.initrd)),
            "append": self.append,
        })
        .to_string()
    }
}

/// The inputs on disk, where the reference tool can read them.
struct Files {
    _directory: tempfile::TempDir,
    firmware: BTreeMap<String, PathBuf>,
    kernel: PathBuf,
    initrd: PathBuf,
}

impl Files {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            let path = directory.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let mut images = BTreeMap::new();
        for (name, suffix, len) in [
            ("amdsev-4k", AMD_SEV, 4096),
            ("amdsev-128k", AMD_SEV, 128 << 10),
            ("amdsev-2m", AMD_SEV, 2 << 20),
            ("amdsev-4m", AMD_SEV, 4 << 20),
            ("ovmfx64-128k", OVMF_X64, 128 << 10),
            ("ovmfx64-2m", OVMF_X64, 2 << 20),
        ] {
            images.insert(name.to_owned(), write(name, &firmware(suffix, len)));
        }
        images.extend(debian());
        let kernel = write("kernel", &noise("kernel", 300_001));
        let initrd = write("initrd", &noise("initrd", 70_000));
        Self {
            _directory: directory,
            firmware: images,
            kernel,
            initrd,
        }
    }
}

/// Firmware images of Debian's `ovmf` on this machine and, where they can be had, trixie's and sid's
/// build for measured direct boot; links left out.
fn debian() -> Vec<(String, PathBuf)> {
    let others = [("trixie", "ovmf"), ("sid", "ovmf-amdsev")];
    let mut shares = vec![(String::new(), PathBuf::from("/usr/share"))];
    for (suite, package) in others {
        let root = unpacked(suite, package);
        shares.extend(root.map(|root| (format!("{suite}/"), root.join("usr/share"))));
    }
    let mut images = Vec::new();
    for (prefix, share) in shares {
        let files = ["OVMF", "ovmf"]
            .into_iter()
            .filter_map(|dir| share.join(dir).read_dir().ok());
        let paths = files.flatten().filter_map(|entry| Some(entry.ok()?.path()));
        let is_image = |path: &PathBuf| {
            path.extension().is_some_and(|e| e == "fd") && path.is_file() && !path.is_symlink()
        };
        images.extend(paths.filter(is_image).map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            (format!("{prefix}{name}"), path)
        }));
    }
    images.sort();
    images
}

/// Sid's build of OVMF that has a place for the hashes of kernel, initial RAM disk and command line.
const AMDSEV: &str = "sid/OVMF.amdsev.fd";

/// One run of the tests unpacks a package once.
static UNPACKING: Mutex<()> = Mutex::new(());

/// A package of another Debian suite, unpacked in the build's cache and never installed: from the
/// mirror that this machine's apt uses. An extra where there is one, so its absence is told but is no
/// failure.
fn unpacked(suite: &str, package: &str) -> Option<PathBuf> {
    let _one = UNPACKING.lock().unwrap();
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{package}-{suite}"));
    let root = home.join("root");
    if root.join("usr/share").exists() {
        return Some(root);
    }
    let done = || {
        let run = |program: &str, args: &[&str]| {
            let output = Command::new(program)
                .args(args)
                .current_dir(&home)
                .output()
                .ok()?;
            output
                .status
                .success()
                .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
        };
        for dir in ["lists/partial", "archives/partial", "root"] {
            std::fs::create_dir_all(home.join(dir)).ok()?;
        }
        let format = [
            "indextargets",
            "--format",
            "$(SITE)",
            "Created-By: Packages",
        ];
        let sites = run("apt-get", &format)?;
        let site = sites
            .lines()
            .find(|site| site.trim_end_matches('/').ends_with("/debian"))?;
        let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
        let source = format!("deb [signed-by={keyring}] {site} {suite} main\n");
        std::fs::write(home.join("sources.list"), source).ok()?;
        std::fs::write(home.join("status"), "").ok()?;
        let at = |option: &str, path: &str| format!("{option}={}", home.join(path).display());
        let options = [
            at("Dir::Etc::sourcelist", "sources.list"),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            at("Dir::State::lists", "lists"),
            at("Dir::State::status", "status"),
            at("Dir::Cache", ""),
            "Acquire::Languages=none".to_owned(),
            "APT::Sandbox::User=root".to_owned(),
        ];
        let options: Vec<&str> = options.iter().flat_map(|o| ["-o", o.as_str()]).collect();
        run("apt-get", &[&options[..], &["update"]].concat())?;
        run("apt-get", &[&options[..], &["download", package]].concat())?;
        run("sh", &["-c", "dpkg-deb -x *.deb root"])
    };
    let found = done().map(|_| root);
    if found.is_none() {
        let what = format!("sev-attest/{suite}-{package}");
        skip::record(&what, "the package could not be had");
    }
    found
}

/// The matrix over synthetic images: the committed table's cases.
fn matrix() -> Vec<Case> {
    let mut cases = Vec::new();
    for mode in [Mode::Snp, Mode::SevEs] {
        for vcpus in 1..=64 {
            cases.push(Case {
                vcpus,
                ..Case::new(mode, "amdsev-128k")
            });
        }
        for cpu in CPU_TYPES
            .iter()
            .map(|cpu| cpu.name)
            .filter(|name| reference_knows(name))
        {
            for vcpus in [1, 3] {
                cases.push(Case {
                    cpu: Cpu::Type(cpu),
                    vcpus,
                    ..Case::new(mode, "ovmfx64-128k")
                });
            }
        }
        for signature in [1, 0x0080_0f12, 0x00a2_0f12, 0x00b0_0f21, 0x0fff_0fff] {
            let cpu = Cpu::Signature(signature);
            cases.push(Case {
                cpu,
                ..Case::new(mode, "amdsev-128k")
            });
        }
        for vmm in [Vmm::Qemu, Vmm::Ec2, Vmm::Gce] {
            for vcpus in [1, 2, 5] {
                for image in ["amdsev-128k", "ovmfx64-2m"] {
                    cases.push(Case {
                        vmm,
                        vcpus,
                        ..Case::new(mode, image)
                    });
                }
            }
            cases.push(Case {
                vmm,
                kernel: true,
                ..Case::new(mode, "amdsev-128k")
            });
        }
    }
    for features in [0, 0x1, 0x5, 0x21, 0x29, 0x61, 0x1_0000_0001, u64::MAX] {
        cases.push(Case {
            features,
            ..Case::new(Mode::Snp, "amdsev-128k")
        });
    }
    for mode in [Mode::Snp, Mode::SevEs, Mode::Sev] {
        for image in ["amdsev-4k", "amdsev-128k", "amdsev-2m", "amdsev-4m"] {
            cases.push(Case::new(mode, image));
            for initrd in [false, true] {
                for append in [
                    None,
                    Some(""),
                    Some("console=ttyS0 luks=1 owner=0x0000000000000000000000000000000000000000"),
                    Some(" quiet  \"quoted\" \u{e9}\u{1f980} \n"),
                ] {
                    let kernel = true;
                    cases.push(Case {
                        kernel,
                        initrd,
                        append,
                        ..Case::new(mode, image)
                    });
                }
            }
        }
        for image in ["ovmfx64-128k", "ovmfx64-2m"] {
            cases.push(Case::new(mode, image));
        }
    }
    cases
}

/// The reference tool's own list is older than QEMU's.
fn reference_knows(cpu: &str) -> bool {
    !matches!(
        cpu,
        "EPYC-v5"
            | "EPYC-Rome-v4"
            | "EPYC-Rome-v5"
            | "EPYC-Milan-v3"
            | "EPYC-Genoa-v2"
            | "EPYC-Turin-v1"
    )
}

/// Cases over the machine's real images: those that each mode can launch.
fn real_images() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, path) in debian() {
        let name = name.as_str();
        let image = Firmware::parse(std::fs::read(path).unwrap()).unwrap();
        cases.push(Case::new(Mode::Sev, name));
        if image.kernel_hashes_section().is_some() {
            for (initrd, append) in [(false, None), (true, None), (true, Some("console=ttyS0"))] {
                for mode in [Mode::Snp, Mode::SevEs, Mode::Sev] {
                    cases.push(Case {
                        kernel: true,
                        initrd,
                        append,
                        ..Case::new(mode, name)
                    });
                }
            }
        }
        for vcpus in [1, 2, 4, 16, 64] {
            for cpu in [
                "EPYC",
                "EPYC-v4",
                "EPYC-Rome",
                "EPYC-Milan-v2",
                "EPYC-Genoa",
            ] {
                let cpu = Cpu::Type(cpu);
                if image.sections().is_ok() {
                    cases.push(Case {
                        vcpus,
                        cpu,
                        ..Case::new(Mode::Snp, name)
                    });
                }
                if image.reset_eip().is_ok() {
                    cases.push(Case {
                        vcpus,
                        cpu,
                        ..Case::new(Mode::SevEs, name)
                    });
                }
            }
        }
    }
    cases
}

/// A Python with the reference tool, in the build's cache; `None` where PyPI can't be reached.
fn reference_python() -> Option<PathBuf> {
    let version = TOOL.rsplit('=').next().unwrap();
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("sev-snp-measure-{version}"));
    let python = home.join("bin/python3");
    let usable = || {
        let probe = Command::new(&python)
            .args(["-c", "import sevsnpmeasure"])
            .output();
        probe.is_ok_and(|output| output.status.success())
    };
    if usable() {
        return Some(python);
    }
    let run = |command: &mut Command| {
        let output = command.output().ok()?;
        if !output.status.success() {
            eprintln!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        output.status.success().then_some(())
    };
    run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&home))?;
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", TOOL]))?;
    usable().then_some(python)
}

/// The reference tool's digest of each case.
fn ask_reference(python: &Path, cases: &[Case], files: &Files) -> Vec<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/measure/reference.py");
    let mut child = Command::new(python)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let lines: Vec<String> = cases.iter().map(|case| case.json(files)).collect();
    let writer = std::thread::spawn(move || {
        for line in lines {
            writeln!(input, "{line}").unwrap();
        }
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    let digests: Vec<String> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    assert_eq!(digests.len(), cases.len());
    digests
}

fn table_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(TABLE)
}

#[test]
fn reference_table() {
    let table = std::fs::read_to_string(table_path()).unwrap_or_default();
    let expected: BTreeMap<&str, &str> = table
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .collect();
    let updating = std::env::var_os("UPDATE_REFERENCE").is_some();
    let files = Files::new();
    let cases = matrix();
    assert!(cases.len() > 300);
    for case in &cases {
        let name = case.name();
        match expected.get(name.as_str()) {
            Some(digest) => assert_eq!(case.ours(&files), *digest, "{name}"),
            None => assert!(
                updating,
                "{TABLE} lacks '{name}': run with UPDATE_REFERENCE=1"
            ),
        }
    }
}

#[test]
fn reference_tool() {
    let Some(python) = reference_python() else {
        skip::skip!("sev-snp-measure", "{TOOL} could not be installed");
    };
    let files = Files::new();
    let synthetic = matrix();
    let real = real_images();
    if real.is_empty() {
        skip::record("sev-attest/ovmf", "Debian's package ovmf is not installed");
    }
    let cases = [synthetic.clone(), real].concat();
    let digests = ask_reference(&python, &cases, &files);
    for (case, digest) in cases.iter().zip(&digests) {
        assert_eq!(case.ours(&files), *digest, "{}", case.name());
    }
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        let rows: BTreeMap<String, &String> =
            synthetic.iter().map(Case::name).zip(&digests).collect();
        let text: String = rows
            .iter()
            .map(|(name, digest)| format!("{name}\t{digest}\n"))
            .collect();
        std::fs::write(table_path(), text).unwrap();
    }
}

/// The reference tool gives bookworm's 4 MiB images an SNP digest although QEMU refuses to launch them.
#[test]
fn real_images_have_what_their_documentation_says() {
    let images = debian();
    if images.is_empty() {
        skip::skip!("ovmf", "Debian's package ovmf is not installed");
    }
    for (name, path) in images {
        let firmware = Firmware::parse(std::fs::read(&path).unwrap()).unwrap();
        if name.contains("VARS") {
            assert_eq!(
                firmware.sections(),
                Err(MeasureError::NoFooterTable),
                "{name}"
            );
        } else if name.contains("_4M") && !name.contains("trixie") {
            // A newer host's own package has them.
            assert!(
                matches!(firmware.sections(), Err(MeasureError::NoMetadata) | Ok(_)),
                "{name}"
            );
        } else {
            assert!(!firmware.sections().unwrap().is_empty(), "{name}");
        }
        let has_place = firmware.kernel_hashes_section().is_some();
        assert_eq!(has_place, name == AMDSEV, "{name}");
    }
}
