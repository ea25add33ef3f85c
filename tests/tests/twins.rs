//! The simulator believes in a disk and an IPFS node of its own. Here they get the same work as the real
//! ones, the store on fjall and the embedded node, and must come to the same.

#[path = "twins/disk.rs"]
mod disk;
#[path = "twins/ipfs.rs"]
mod ipfs;
