//! A DNS server on loopback that knows a few TXT records.

use std::collections::HashMap;
use std::net::SocketAddr;

use tokio::net::UdpSocket;
use tokio_util::task::AbortOnDropHandle;

/// Time to live of every record, seconds.
const TTL: u32 = 60;

/// The server, until dropped.
pub struct FakeDns {
    pub address: SocketAddr,
    _serving: AbortOnDropHandle<()>,
}

impl FakeDns {
    /// Starts a server with the TXT records of these names.
    pub async fn start(records: &[(&str, &[&str])]) -> FakeDns {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let records: HashMap<String, Vec<String>> = records
            .iter()
            .map(|(name, texts)| {
                let texts = texts.iter().map(|text| (*text).to_owned()).collect();
                ((*name).to_owned(), texts)
            })
            .collect();
        let serving = tokio::spawn(async move {
            let mut query = [0; 1024];
            while let Ok((length, client)) = socket.recv_from(&mut query).await {
                let answer = answer(&query[..length], &records);
                let _ = socket.send_to(&answer, client).await;
            }
        });
        FakeDns {
            address,
            _serving: AbortOnDropHandle::new(serving),
        }
    }
}

/// Returns the answer to a query with one question (RFC 1035, section 4).
fn answer(query: &[u8], records: &HashMap<String, Vec<String>>) -> Vec<u8> {
    let mut labels = Vec::new();
    let mut at = 12;
    while query[at] != 0 {
        let length = usize::from(query[at]);
        labels.push(String::from_utf8_lossy(&query[at + 1..=at + length]).to_ascii_lowercase());
        at += 1 + length;
    }
    let question = &query[12..at + 5];
    let is_txt = question[question.len() - 4..][..2] == [0, 16];
    let found = records.get(&labels.join(".")).filter(|_| is_txt);
    let texts = found.cloned().unwrap_or_default();
    // An answer, recursion available; 3: there is no such name.
    let flags: [u8; 2] = [0x81, if found.is_some() { 0x80 } else { 0x83 }];
    let mut out = [&query[..2], &flags, &[0, 1]].concat();
    out.extend((texts.len() as u16).to_be_bytes());
    out.extend([0; 4]);
    out.extend_from_slice(question);
    for text in texts {
        // The name is a pointer to the question's.
        out.extend([0xc0, 12, 0, 16, 0, 1]);
        out.extend(TTL.to_be_bytes());
        let strings: Vec<&[u8]> = text.as_bytes().chunks(255).collect();
        let length: usize = strings.iter().map(|it| it.len() + 1).sum();
        out.extend((length as u16).to_be_bytes());
        for string in strings {
            out.push(string.len() as u8);
            out.extend_from_slice(string);
        }
    }
    out
}
