//! The client of Kubo's HTTP RPC API.
