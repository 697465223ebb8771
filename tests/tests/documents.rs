//! What the documents name is there.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{fs, path::Path};

/// Paths below the workspace that end in `.rs`, and the test that is named with each, as
/// `net/tests/repair.rs::nothing_stays_behind`.
fn named(text: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    let roots = ["agent/", "disk/", "net/", "qmp/", "sev-attest/", "tests/"];
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter_map(move |word| {
        let (path, test) = match word.split_once("::") {
            Some((path, test)) => (path, Some(test)),
            None => (word, None),
        };
        // Not one that stands for several: `qmp/src/{line,ring}.rs`.
        let is_one = path.ends_with(".rs") && !path.contains(['{', '*', ' ']);
        let is_path = is_one && roots.iter().any(|root| path.starts_with(root));
        is_path.then_some((path, test))
    })
}

#[test]
fn tests_that_documents_name_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut counted = 0;
    for document in fs::read_dir(root.join("docs")).unwrap() {
        let document = document.unwrap().path();
        if document.extension().is_none_or(|e| e != "md") {
            continue;
        }
        let text = fs::read_to_string(&document).unwrap();
        // Blocks of code have no quotes within lines.
        let prose: Vec<_> = text.split("```").step_by(2).collect();
        for (path, test) in prose.iter().flat_map(|part| named(part)) {
            let file = root.join(path);
            let source = fs::read_to_string(&file);
            let source = source.unwrap_or_else(|e| format!("no file: {e}"));
            assert!(
                !source.starts_with("no file"),
                "{document:?} names {path}: {source}"
            );
            if let Some(test) = test {
                let head = format!("fn {test}(");
                assert!(source.contains(&head), "{document:?}: {path} has no {test}");
                counted += 1;
            }
        }
    }
    assert!(counted > 40, "{counted} tests are named");
}
