//! What the agent's API is made of: requests, views, error codes and events.
//!
//! The server, the client, the command line and the test harnesses share these
//! types. Nothing here needs a database, a server or an async runtime. The feature
//! `openapi` adds the types' schemas to the API's description.
//!
//! What is read may have fields that this version does not know: views ignore
//! them, requests refuse them. Words are spelled one way everywhere (API, database,
//! events, command line, documents): `kebab-case`; error codes are `snake_case`.

mod owner;
mod warning;

pub use owner::{Address, AddressError, Owner};
pub use warning::{Warning, WarningKind};
