//! Operations as callers ask for them, over a real database and store.

mod images;
mod intent;
mod tenants;
