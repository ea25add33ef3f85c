//! The daemon of an IPFS cluster peer: [`daemon`] starts and stops its components, [`driver`] runs the
//! core, [`net`] and [`store`] are its network and disk, [`cluster`] has the operations that [`http`]
//! serves; [`metrics`] and [`events`] show them to operators.

pub mod cluster;
pub mod config;
pub mod daemon;
pub mod demo;
mod discovery;
pub mod driver;
pub mod events;
pub mod http;
pub mod logging;
pub mod metrics;
pub mod net;
pub mod ports;
pub mod state;
pub mod store;
pub mod trace;
