//! Twin tests: the simulator's disk and IPFS daemon get the same operations as the real ones, the store on
//! fjall and the embedded node, and must end in the same state.

#[path = "twins/disk.rs"]
mod disk;
#[path = "twins/ipfs.rs"]
mod ipfs;
