//! Operations as callers ask for them, over a real database and store.

mod intent;
mod tenants;
