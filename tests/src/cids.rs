//! CIDs to pin and bytes to add, for tests.

/// Deterministic pseudorandom numbers (splitmix64).
#[derive(Debug, Clone)]
pub struct Numbers(u64);

impl Numbers {
    /// Creates the generator of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed ^ 0x9e37_79b9_7f4a_7c15)
    }

    /// Returns the next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.draw() % limit
    }
}

/// Returns `size` bytes that do not compress and do not repeat.
pub fn bytes(seed: u64, size: usize) -> Vec<u8> {
    let mut numbers = Numbers::new(seed);
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        bytes.extend_from_slice(&numbers.draw().to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// Returns an identity CID, whose content every IPFS node has: it is pinned at once.
pub fn identity(text: &str) -> String {
    let length = u8::try_from(text.len()).ok().filter(|length| *length < 0x80);
    let length = length.expect("the length of a short text is one byte");
    // CID version 1, raw, identity hash, length.
    base32(&[&[1, 0x55, 0, length], text.as_bytes()].concat())
}

/// Returns the CID of a block that no node has: it is never pinned.
pub fn missing(seed: u64) -> String {
    // CID version 1, raw, SHA-256, 32 bytes.
    base32(&[&[1, 0x55, 0x12, 0x20][..], &bytes(seed, 32)].concat())
}

/// Encodes as base 32, multibase `b`.
fn base32(bytes: &[u8]) -> String {
    let alphabet = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut text = String::from("b");
    let (mut waiting, mut bits) = (0u32, 0u32);
    for byte in bytes {
        waiting = (waiting << 8) | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(char::from(alphabet[(waiting >> bits) as usize & 31]));
        }
        waiting &= (1 << bits) - 1;
    }
    if bits > 0 {
        text.push(char::from(alphabet[(waiting << (5 - bits)) as usize & 31]));
    }
    text
}
