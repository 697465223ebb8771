//! One task for each instance: it alone moves the instance from phase to phase.
//!
//! The task reads what is wanted from the database, asks [`crate::life::decide`]
//! what to do, writes the phase down and carries it out. Whatever it waits for
//! meanwhile, it hears ([`hear`]) QEMU's end, a changed intent, QEMU's events and
//! requests. Requests that change a live instance are served one at a time, by a job
//! beside the rest ([`job`]).

mod awaiting;
mod clean_up;
mod console_log;
mod context;
mod events;
mod export;
mod hardware;
mod hear;
mod hotplug;
mod job;
mod launch;
mod monitor;
mod prepare;
mod probe;
mod rate_limit;
mod rest;
mod running;
mod serve;
mod start;
mod stop;
mod task;
mod volumes;
mod watch;

pub(crate) use prepare::user_data_warnings;
pub(crate) use task::spawn;

#[cfg(test)]
mod tests;
