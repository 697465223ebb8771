//! Reading a stranger's YAML as the guest will, within bounds, into the little that the seed must
//! know of it.
//!
//! cloud-init loads user data with PyYAML's safe loader: YAML 1.1 with habits of its own (no tabs
//! between tokens, text in quotes may go on at column 0, `2024-02-30` is an error), and a part
//! that it cannot load it drops whole, without a sign. No library for Rust reads 1.1 so; those
//! that read 1.2 refuse much that PyYAML takes and take what it drops. So this reader follows
//! PyYAML's rules, and a test compares the two over a corpus and over random texts.
//!
//! - [`cursor`], [`scalars`], [`scanner`]: text to tokens
//! - [`resolve`]: what a scalar means
//! - [`compose`]: tokens to [`Node`]s

mod compose;
mod cursor;
mod limits;
mod node;
mod resolve;
mod scalars;
mod scanner;

pub(crate) use node::Node;

/// Reads the one document in `text`; an empty one is `None`.
///
/// Time and memory are proportional to the text, up to the bounds above.
///
/// # Errors
/// In words, with the line: what the guest could not load, or what is beyond the bounds.
pub(crate) fn parse(text: &str) -> Result<Option<Node>, String> {
    if let Some(c) = text.chars().find(|c| !printable(*c)) {
        return Err(format!(
            "YAML cannot have the character {}",
            c.escape_unicode()
        ));
    }
    scanner::tokens(text)
        .and_then(compose::document)
        .map_err(|fault| format!("YAML, line {}: {}", fault.line, fault.reason))
}

/// The characters of a YAML 1.1 stream (section 4.1), which cloud-init's loader insists on.
fn printable(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{d7ff}'
        | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_counts() {
        let node = parse("#cloud-config\na: &x [1, 'two']\nb: {c: *x}\na: last\nyes: Off\n")
            .unwrap()
            .unwrap();
        assert_eq!(node.get("a").unwrap().text(), Some("last"));
        let Node::Sequence(items) = node.get("b").unwrap().get("c").unwrap() else {
            panic!()
        };
        assert_eq!(
            items[1],
            Node::Scalar {
                text: "two".to_owned(),
                plain: false
            }
        );
        assert_eq!(node.get("yes").unwrap().boolean(), Some(false));
        assert_eq!(parse("#cloud-config\n").unwrap(), None);
    }

    #[test]
    fn bombs_are_refused_quickly() {
        let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..12 {
            let items = vec![format!("*a{}", n - 1); 9].join(", ");
            laughs += &format!("a{n}: &a{n} [{items}]\n");
        }
        let long = format!(
            "a: &a {}\nb: [{}]\n",
            "x".repeat(9000),
            vec!["*a"; 5000].join(",")
        );
        let deep = format!("a: {}{}", "[".repeat(5000), "]".repeat(5000));
        let deep_block: String = (0..300).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
        let wide = format!("a: [{}]", "1,".repeat(100_000));
        let start = std::time::Instant::now();
        for bomb in [&laughs, &long, &deep, &deep_block, &wide] {
            parse(bomb).unwrap_err();
        }
        assert!(start.elapsed().as_secs() < 5);
    }

    #[test]
    fn what_the_guest_would_not_load_is_refused() {
        for bad in [
            "a: [",
            "a: !ruby/object:X {}",
            "a: !!python/object/apply:os.system [id]",
            "? [a]\n: b",
            "a: 1\n---\nb: 2\n",
            "a: *unknown",
            "&a [*a]",
            "a: \u{1}",
            "a: \u{7f}",
            "a: \0",
            "\ta: 1",
            "a: b: c",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
