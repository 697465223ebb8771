//! Facts of hosts that nobody has, and their verdicts.

mod confinement;
mod directory;
mod net;
mod system;
mod virt;

use super::{super::Status, *};
use Status::{Degraded, Missing, Ok as Good};

fn set(words: &[&str]) -> BTreeSet<String> {
    words.iter().map(|&w| w.to_owned()).collect()
}

#[test]
fn lists_read_as_english() {
    for (words, expected) in [
        (&[][..], "none"),
        (&["a"], "a"),
        (&["a", "b"], "a and b"),
        (&["a", "b", "c"], "a, b and c"),
    ] {
        assert_eq!(list(words), expected);
    }
}
