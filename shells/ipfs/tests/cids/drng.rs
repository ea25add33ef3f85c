//! Deterministic random bytes of Kubo's tests.

/// Random bytes like in Kubo's tests: ChaCha20's keystream, keyed with the SHA-256 of a seed.
pub(super) struct Drng {
    state: [u32; 16],
    block: Vec<u8>,
}

impl Drng {
    pub(super) fn new(seed: &str) -> Drng {
        use multihash_codetable::{Code, MultihashDigest};
        let key = Code::Sha2_256.digest(seed.as_bytes());
        let mut state = [0; 16];
        state[..4].copy_from_slice(&[0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574]);
        for (word, bytes) in state[4..12].iter_mut().zip(key.digest().chunks(4)) {
            *word = u32::from_le_bytes(bytes.try_into().unwrap());
        }
        Drng {
            state,
            block: Vec::new(),
        }
    }

    pub(super) fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.block.len() < count {
            let mut x = self.state;
            for _ in 0..10 {
                for [a, b, c, d] in [[0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15]] {
                    quarter(&mut x, a, b, c, d);
                }
                for [a, b, c, d] in [[0, 5, 10, 15], [1, 6, 11, 12], [2, 7, 8, 13], [3, 4, 9, 14]] {
                    quarter(&mut x, a, b, c, d);
                }
            }
            for (word, start) in x.iter().zip(self.state) {
                self.block
                    .extend_from_slice(&word.wrapping_add(start).to_le_bytes());
            }
            self.state[12] = self.state[12].wrapping_add(1);
        }
        let rest = self.block.split_off(count);
        std::mem::replace(&mut self.block, rest)
    }
}

fn quarter(x: &mut [u32; 16], a: usize, b: usize, c: usize, d: usize) {
    for (first, second, third, turn) in [(a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)] {
        x[first] = x[first].wrapping_add(x[second]);
        x[third] = (x[third] ^ x[first]).rotate_left(turn);
    }
}
