//! One task for each instance: it alone moves the instance from phase to phase.
//!
//! The task reads what is wanted from the database, asks [`crate::life::decide`]
//! what to do, writes the phase down and carries it out. Requests that change a
//! live instance come by its inbox and are served when it rests, one at a time.

mod console_log;
mod hotplug;
mod launch;
pub(crate) mod prepare;
mod probe;
mod running;
mod start;
mod stop;
mod task;
mod volumes;

pub(crate) use task::spawn;
