//! What the agent's API is made of: requests, views, error codes and events.
//!
//! The server, the client, the command line and the test harnesses share these
//! types. Nothing here needs a database, a server or an async runtime. The feature
//! `openapi` adds the types' schemas to the API's description.
//!
//! What is read may have fields that this version does not know: views ignore
//! them, requests refuse them. Words are spelled one way everywhere (API, database,
//! events, command line, documents): `kebab-case`; error codes are `snake_case`.

mod error;
mod event;
mod image;
mod instance;
mod node;
mod owner;
mod phase;
mod volume;
mod warning;

pub use error::{
    Code, ErrorBody, ErrorCode, ErrorDetail, NoRoom, Resource, Subject, TransportCode,
};
pub use event::{Event, EventKind};
pub use image::{ImageRequest, ImageView, ImportRequest, ProgressView, Update};
pub use instance::{
    AttachedVolume, CreateRequest, Firmware, InstanceView, PortChange, Ports, StopOptions,
    VolumeRequest,
};
pub use node::{NodeStatus, Totals};
pub use owner::{Address, AddressError, Owner};
pub use phase::{Desired, Failure, FailureCode, Phase, Step, StopReason};
pub use volume::{
    AttachVolume, CreateVolume, ExportRequest, ExportView, FileSystem, ImportVolume, ResizeVolume,
    VolumeState, VolumeView,
};
pub use warning::{NodeWarning, NodeWarningKind, Warning, WarningKind};

/// A word that this version does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no word that this version knows")]
pub struct UnknownWord(pub String);
