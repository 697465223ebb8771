//! How much is read.

/// Deepest nesting.
pub(super) const MAX_DEPTH: usize = 32;
/// Most nodes, with every alias counted as what it stands for.
pub(super) const MAX_NODES: usize = 20_000;
/// Most bytes of scalars, with every alias counted as what it stands for: 1 MiB.
pub(super) const MAX_BYTES: usize = 1 << 20;
