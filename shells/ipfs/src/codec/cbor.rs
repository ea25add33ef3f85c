//! Lenient reader of DAG-CBOR.
//!
//! Strings that are not UTF-8 must not make a block unreadable: Go writes and reads them, because its strings
//! are bytes. So links are found without looking into strings and without building the data: one pass over
//! the bytes, no recursion, no memory. In decoded data invalid bytes of strings become U+FFFD, like in Kubo.

use super::Data;
use crate::Cid;
use std::collections::BTreeMap;

/// Maximum depth of nested values that is decoded; deeper data would exhaust the stack. The limit of other
/// implementations.
const DEPTH_MAX: usize = 256;
/// CBOR tag of a link.
const LINK: u64 = 42;

/// One data item; the contents of an array or a map follow it.
enum Item<'a> {
    Integer(i128),
    Bytes(&'a [u8]),
    Text(&'a [u8]),
    Array(u64),
    Map(u64),
    Link(Cid),
    Bool(bool),
    Null,
    Float(f64),
}

/// Returns the links in a block, in order.
pub(super) fn links(block: &[u8]) -> Result<Vec<Cid>, &'static str> {
    let mut items = Items(block);
    let mut links = Vec::new();
    let mut expected = 1_u64;
    while expected > 0 {
        expected -= 1;
        let more = match items.next()? {
            Item::Array(length) => length,
            Item::Map(length) => length.checked_mul(2).ok_or("truncated")?,
            Item::Link(cid) => {
                links.push(cid);
                0
            }
            Item::Integer(_)
            | Item::Bytes(_)
            | Item::Text(_)
            | Item::Bool(_)
            | Item::Null
            | Item::Float(_) => 0,
        };
        // Each item has at least a byte, so a claimed length alone causes no work.
        expected = expected
            .checked_add(more)
            .filter(|it| *it <= items.0.len() as u64)
            .ok_or("truncated")?;
    }
    items.end().map(|()| links)
}

/// Counts the items of a block, keys included, and the maps among them: the basis for the memory of
/// [`decode`].
pub(super) fn count(block: &[u8]) -> (u64, u64) {
    let mut items = Items(block);
    let (mut count, mut maps) = (0, 0);
    // Errors are ignored here; decoding reports them.
    while let Ok(item) = items.next() {
        count += 1;
        maps += u64::from(matches!(item, Item::Map(_)));
    }
    (count, maps)
}

/// Decodes a block to IPLD data.
pub(super) fn decode(block: &[u8]) -> Result<Data, &'static str> {
    let mut items = Items(block);
    let data = value(&mut items, 0)?;
    items.end().map(|()| data)
}

fn value(items: &mut Items<'_>, depth: usize) -> Result<Data, &'static str> {
    if depth > DEPTH_MAX {
        return Err("nested too deep");
    }
    Ok(match items.next()? {
        Item::Integer(number) => Data::Integer(number),
        Item::Bytes(bytes) => Data::Bytes(bytes.to_vec()),
        Item::Text(text) => Data::String(String::from_utf8_lossy(text).into_owned()),
        Item::Link(cid) => Data::from(cid),
        Item::Bool(value) => Data::Bool(value),
        Item::Null => Data::Null,
        Item::Float(number) => Data::Float(number),
        Item::Array(length) => {
            let mut list = Vec::new();
            for _ in 0..length {
                list.push(value(items, depth + 1)?);
            }
            Data::List(list)
        }
        Item::Map(length) => {
            let mut map = BTreeMap::new();
            for _ in 0..length {
                let Item::Text(key) = items.next()? else {
                    return Err("a map key is not a string");
                };
                let key = String::from_utf8_lossy(key).into_owned();
                if map.insert(key, value(items, depth + 1)?).is_some() {
                    return Err("a map has a duplicate key");
                }
            }
            Data::Map(map)
        }
    })
}

struct Items<'a>(&'a [u8]);

impl<'a> Items<'a> {
    fn next(&mut self) -> Result<Item<'a>, &'static str> {
        let first = self.take(1)?[0];
        let (major, info) = (first >> 5, first & 0x1f);
        if major == 7 {
            return self.simple(info);
        }
        let argument = self.argument(info)?;
        Ok(match major {
            0 => Item::Integer(argument.into()),
            1 => Item::Integer(-1 - i128::from(argument)),
            2 => Item::Bytes(self.take(argument)?),
            3 => Item::Text(self.take(argument)?),
            4 => Item::Array(argument),
            5 => Item::Map(argument),
            _ if argument == LINK => Item::Link(self.link()?),
            _ => return Err("a tag other than that of a link"),
        })
    }

    fn simple(&mut self, info: u8) -> Result<Item<'a>, &'static str> {
        Ok(match info {
            20 => Item::Bool(false),
            21 => Item::Bool(true),
            // Undefined; Go reads it as null too.
            22 | 23 => Item::Null,
            25 => Item::Float(half(u16::from_be_bytes(self.fixed()?))),
            26 => Item::Float(f32::from_be_bytes(self.fixed()?).into()),
            27 => Item::Float(f64::from_be_bytes(self.fixed()?)),
            _ => return Err("an unknown simple value"),
        })
    }

    fn argument(&mut self, info: u8) -> Result<u64, &'static str> {
        Ok(match info {
            0..24 => info.into(),
            24 => u8::from_be_bytes(self.fixed()?).into(),
            25 => u16::from_be_bytes(self.fixed()?).into(),
            26 => u32::from_be_bytes(self.fixed()?).into(),
            27 => u64::from_be_bytes(self.fixed()?),
            _ => return Err("an indefinite or reserved length"),
        })
    }

    fn link(&mut self) -> Result<Cid, &'static str> {
        let Item::Bytes([0, cid @ ..]) = self.next()? else {
            return Err("a link is not a byte string that begins with 0");
        };
        Cid::try_from(cid).map_err(|_| "a link's cid is malformed")
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let bytes = self.take(N as u64)?;
        bytes.first_chunk().copied().ok_or("truncated")
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], &'static str> {
        let length = usize::try_from(length).map_err(|_| "truncated")?;
        let (taken, rest) = self.0.split_at_checked(length).ok_or("truncated")?;
        self.0 = rest;
        Ok(taken)
    }

    fn end(&self) -> Result<(), &'static str> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err("trailing bytes")
        }
    }
}

/// Converts a float of 16 bits: RFC 8949, appendix D.
fn half(bits: u16) -> f64 {
    let exponent = i32::from(bits >> 10 & 0x1f);
    let mantissa = f64::from(bits & 0x3ff);
    let value = match exponent {
        0 => mantissa * 2_f64.powi(-24),
        31 if mantissa == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (mantissa + 1024.0) * 2_f64.powi(exponent - 25),
    };
    if bits >> 15 == 0 { value } else { -value }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::any;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn decoding_agrees_with_the_library(data in any::data()) {
            let block = serde_ipld_dagcbor::to_vec(&data).unwrap();
            let (expected, found) = (data.links(), links(&block).unwrap());
            prop_assert_eq!(found.len(), expected.len());
            prop_assert!(expected.iter().all(|cid| found.contains(cid)));
            prop_assert_eq!(decode(&block).unwrap(), data);
        }

        #[test]
        fn arbitrary_bytes_are_decoded_or_refused(bytes in any::bytes(60), data in any::data()) {
            let mut block = serde_ipld_dagcbor::to_vec(&data).unwrap();
            for bytes in [&bytes[..], &{ block.truncate(block.len() / 2); block }] {
                // Links are found in all that is read, and in deeper data.
                prop_assert!(decode(bytes).is_err() || links(bytes).is_ok());
                count(bytes);
            }
        }
    }

    #[test]
    fn strings_need_not_be_utf8() {
        let cid = Cid::default();
        let mut block = b"\xa2\x62\xff\xfe\x61\x80\x61l\xd8\x2a".to_vec();
        let link = [&[0], &cid.to_bytes()[..]].concat();
        block.extend([0x58, link.len() as u8]);
        block.extend(&link);
        assert_eq!(links(&block), Ok(vec![cid]));
        let Ok(Data::Map(map)) = decode(&block) else {
            panic!("a map");
        };
        assert_eq!(map["\u{fffd}\u{fffd}"], Data::String("\u{fffd}".to_owned()));
    }

    #[test]
    fn lengths_beyond_the_block_and_deep_nesting_are_refused() {
        for block in [
            &b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff"[..],
            b"\xbb\x80\0\0\0\0\0\0\0",
            b"\x7b\xff\xff\xff\xff\xff\xff\xff\xff",
            b"",
        ] {
            assert_eq!(links(block), Err("truncated"));
            assert_eq!(decode(block), Err("truncated"));
        }
        let mut deep = vec![0x81; 100_000];
        deep.push(0);
        assert_eq!(links(&deep), Ok(Vec::new()));
        assert_eq!(decode(&deep), Err("nested too deep"));
    }

    #[test]
    fn small_floats_are_read() {
        for (bits, value) in [
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x0001, 5.960_464_477_539_063e-8),
            (0x7c00, f64::INFINITY),
        ] {
            assert_eq!(half(bits), value);
        }
    }
}
