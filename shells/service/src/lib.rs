//! The daemon.

pub mod cluster;
pub mod config;
pub mod daemon;
pub mod demo;
pub mod driver;
pub mod http;
pub mod logging;
pub mod net;
pub mod ports;
pub mod state;
pub mod store;
