//! The HTTP API of the embedded node, in the shape of Kubo's.
