//! The daemon.

pub mod cluster;
pub mod config;
pub mod net;
pub mod store;
