//! The ctl.
fn main() {}
