//! Forms in which reports and certificates are handed around.

pub mod pem;
