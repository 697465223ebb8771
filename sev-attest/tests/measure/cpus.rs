//! The table of CPU types against the QEMU on this machine.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use sev_attest::measure::{CPU_TYPES, CpuSignature};

const QEMU: &str = "qemu-system-x86_64";

/// Family, model and stepping of the first vCPU of a machine with this CPU type, asked through QMP.
fn ask_qemu(cpu: &str) -> (u32, u32, u32) {
    let mut qemu = Command::new(QEMU)
        .args([
            "-accel",
            "tcg",
            "-machine",
            "q35",
            "-m",
            "32",
            "-nodefaults",
            "-display",
            "none",
        ])
        .args(["-S", "-qmp", "stdio", "-cpu", cpu])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = qemu.stdin.take().unwrap();
    writeln!(input, r#"{{"execute":"qmp_capabilities"}}"#).unwrap();
    for property in ["family", "model", "stepping"] {
        let path = "/machine/unattached/device[0]";
        writeln!(
            input,
            r#"{{"execute":"qom-get","arguments":{{"path":"{path}","property":"{property}"}}}}"#
        )
        .unwrap();
    }
    writeln!(input, r#"{{"execute":"quit"}}"#).unwrap();
    let numbers: Vec<u32> = BufReader::new(qemu.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok)
        .filter_map(|line| {
            line.strip_prefix(r#"{"return": "#)?
                .strip_suffix('}')?
                .parse()
                .ok()
        })
        .collect();
    qemu.wait().unwrap();
    match numbers[..] {
        [family, model, stepping] => (family, model, stepping),
        _ => panic!("{cpu}: {QEMU} answered {numbers:?}"),
    }
}

#[test]
fn every_epyc_model_of_this_qemu_is_known_with_its_signature() {
    let help = match Command::new(QEMU).args(["-cpu", "help"]).output() {
        Ok(help) => help,
        Err(e) => skip::skip!("qemu", "{QEMU}: {e}"),
    };
    let help = String::from_utf8(help.stdout).unwrap();
    let names: Vec<&str> = help
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| name.starts_with("EPYC"))
        .collect();
    assert!(names.len() >= 16, "{names:?}");
    for name in names {
        let known = CpuSignature::of_type(name).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(known.parts(), ask_qemu(name), "{name}");
    }
}

#[test]
fn the_documented_table_has_every_signature() {
    let docs = include_str!("../../../docs/measure.md");
    for cpu in CPU_TYPES {
        let (family, model, stepping) = cpu.signature.parts();
        let row = format!("| {family}, {model}, {stepping} | {} |", cpu.signature);
        assert!(docs.contains(&row), "{}: {row}", cpu.name);
    }
}
