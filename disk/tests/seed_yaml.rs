//! The judge of a user's cloud-config beside the guest's reader: cloud-init's own loader, over a
//! corpus of what people write and of what breaks it, and over random texts.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod seed_support;

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use disk::seed::UserData;
use seed_support::cloud_init;

/// Loads; `None` where Python itself gave up.
fn guest_loads(texts: &[String]) -> Vec<Option<bool>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/seed_support/load_yaml.py");
    let mut python = Command::new("/usr/bin/python3")
        .arg(script)
        .env("PYTHONPATH", cloud_init())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = python.stdin.take().unwrap();
    let json = serde_json::to_vec(texts).unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&json).unwrap());
    let output = python.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Texts on which the two differ, with what the judge said.
fn differences(texts: &[String]) -> Vec<String> {
    let guest = guest_loads(texts);
    let mut found = Vec::new();
    for (text, guest) in texts.iter().zip(guest) {
        let ours = text.parse::<UserData>();
        // The judge has bounds, and refuses what refers to itself.
        let bounded = |e: &String| {
            ["nested deeper", "part of", "too much"]
                .iter()
                .any(|b| e.contains(b))
        };
        let reason = ours.as_ref().err().map(ToString::to_string);
        if guest.is_none() || reason.as_ref().is_some_and(bounded) {
            continue;
        }
        if guest != Some(ours.is_ok()) {
            found.push(format!("{text:?}: guest {guest:?}, {reason:?}"));
        }
    }
    found
}

const LOADED: &[&str] = &[
    // Text in quotes that goes on at column 0: certificates, scripts.
    "ca_certs:\n  trusted:\n    - \"-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIUQ0\n-----END CERTIFICATE-----\"\n",
    "write_files:\n- path: /root/hello.sh\n  permissions: '0755'\n  content: '#!/bin/sh\necho hello'\n",
    "write_files:\n  - path: /root/x\n    content: \"line one\nline two\n\nline three\"\n",
    // Brackets at column 0.
    "packages: [\nnginx,\ngit\n]\n",
    "a: {\nb: 1,\nc: 2\n}\n",
    // Tags and merge keys.
    "x: ! foo\n",
    "x: !<tag:yaml.org,2002:str> foo\n",
    "x: &d {package_update: true}\n<<: *d\n",
    "a: &a {x: 1}\nb: {<<: [*a, {y: 2}], x: 3}\n",
    "a: !!binary aGk=\nb: !!set {x, y}\nc: !!omap [a: 1]\n",
    "%YAML 1.1\n---\na: 1\n...\n",
    // YAML 1.1's own.
    "a: yes\nb: 012\nc: 1:20\nd: 2024-02-29\ne: 1_000\nf: .inf\ng: 0b11\n",
    "a: 'it''s'\nb: \"\\x41\\u00e9\\\n  c\"\n? k\n: v\n",
    "a: |+2\n    x\n   y\n\nb: >-\n  folded\n  text\n",
    "- &a x\n",
    "{a: b, c}\n",
    "a:\n- b\n- c: d\n  e: f\n",
    "a: http://x:80/?q=1#f\n",
    "=: x\n",
    "\n# only a comment\n",
    "a: b #c\r\nd: e\r\n",
];

const DROPPED: &[&str] = &[
    "hostname: foo\t\n",
    "a: 1\n \t\nb: 2\n",
    "a:\n-\tx\n",
    "\ta: 1\n",
    "a: &x 1\nb: &x 2\n",
    "a: 2024-02-30\n",
    "a: 2024-13-01 25:00:00\n",
    "a: =\n",
    "a: !!int abc\n",
    "a: !!binary a\n",
    "a: !!bool maybe\n",
    "a: !!float x\n",
    "a: !!timestamp x\n",
    "a: !!str [x]\n",
    "<<: 3\n",
    "a: <<\n",
    "a: 0x_\n",
    "a: 0b_\n",
    "a: b: c\n",
    "a: [b\n",
    "a: 'x\n",
    "a: \"\\q\"\n",
    "a: *b\n",
    "a: @b\n",
    "a: `b`\n",
    "a: %b\n",
    "? [a]\n: b\n",
    "a: 1\n---\nb: 2\n",
    "a: !x b\n",
    "a: !!python/object/apply:os.system [id]\n",
    "a: |0\n  x\n",
    "a: 1\n b: 2\n",
    "a\nb: 1\n",
    "%YAML 2.0\n---\na: 1\n",
    "2024-02-30: a\n",
];

/// Cut into pieces, what a document is made of.
const PIECES: &[&str] = &[
    "a",
    "b: ",
    "- ",
    "? ",
    ": ",
    "\n",
    "\n  ",
    "\n- ",
    "  ",
    "\t",
    " ",
    "[",
    "]",
    "{",
    "}",
    ",",
    "'",
    "\"",
    "|",
    "|-\n",
    "|2+\n",
    ">\n",
    "> # c\n",
    "#",
    "# c\n",
    "&x ",
    "*x",
    "&x",
    "!",
    "!!int ",
    "!!str ",
    "! ",
    "!<tag:yaml.org,2002:str> ",
    "!!binary ",
    "!!omap ",
    "!!float ",
    "!!bool ",
    "!!null ",
    "!!map ",
    "!!seq ",
    "!!timestamp ",
    "---",
    "--- ",
    "\n---\n",
    "...",
    "\n...\n",
    "%YAML 1.1\n",
    "%TAG ! x\n",
    "<<: ",
    "<<",
    "=",
    "~",
    "null",
    "yes",
    "0x_",
    "0b1",
    "012",
    "0_",
    "1:20",
    "1_000",
    ".5",
    "1.5e+3",
    "2024-02-30",
    "2024-02-29",
    "2001-1-1",
    "2001-12-14t21:59:43.10-05:00",
    "\\n",
    "\\x41",
    "\\\n",
    "\r\n",
    "\r",
    "\u{2028}",
    "\u{85}",
    "é",
    "@",
    "`",
    "%",
    "a: b",
    "a:b",
    "x: y\n",
    "key: [1, 2]\n",
    "k: {a: 1}\n",
    "? a\n: b\n",
    "'it''s'",
    "\"q\n q\"",
    "'m\nn'",
    "-",
    "--",
    "?",
    ":",
    "a#b",
    "a #b",
    "http://x:80/",
    "1",
    "12",
    "-1",
    "+",
    ".",
];

fn cloud_config(text: &str) -> String {
    format!("#cloud-config\n{text}")
}

#[test]
fn the_corpus_is_judged_as_the_guest_does() {
    let loaded: Vec<String> = LOADED.iter().map(|t| cloud_config(t)).collect();
    let dropped: Vec<String> = DROPPED.iter().map(|t| cloud_config(t)).collect();
    // A list is loaded by PyYAML and is no cloud-config.
    let as_expected = |texts: &[String], expected: bool| {
        for (text, guest) in texts.iter().zip(guest_loads(texts)) {
            let list = text.contains("\n- &a x");
            assert_eq!(guest, Some(expected && !list), "{text:?}");
        }
    };
    as_expected(&loaded, true);
    as_expected(&dropped, false);
    let all: Vec<String> = loaded.into_iter().chain(dropped).collect();
    assert_eq!(differences(&all), Vec::<String>::new());
}

#[test]
fn random_texts_are_judged_as_the_guest_does() {
    // A linear congruential generator (Knuth's MMIX): the same texts every time.
    let mut state: u64 = 20_241_128;
    let mut random = |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    let mut texts = Vec::new();
    for n in 0..6000 {
        let mut text = if n % 2 == 0 {
            String::new()
        } else {
            LOADED[random(LOADED.len())].to_owned()
        };
        for _ in 0..=random(if n % 2 == 0 { 12 } else { 3 }) {
            let piece = PIECES[random(PIECES.len())];
            let places: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
            let at = match n % 2 == 0 || places.is_empty() {
                true => text.len(),
                false => places[random(places.len())],
            };
            text.insert_str(at, piece);
        }
        texts.push(cloud_config(&text));
    }
    let loads = guest_loads(&texts)
        .iter()
        .filter(|l| **l == Some(true))
        .count();
    assert!(loads > 1000, "only {loads} of the texts load");
    assert_eq!(differences(&texts), Vec::<String>::new());
}
