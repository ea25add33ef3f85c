//! The `peerstore` file: addresses of other peers, one multiaddress with a peer id per line.

use std::path::Path;

use super::{Address, ConfigError, files};

/// The addresses in a file, and warnings about the other lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peerstore {
    /// In the order of the file, without duplicates; each ends in a peer id.
    pub addresses: Vec<Address>,
    /// One sentence for each line that was skipped.
    pub warnings: Vec<String>,
}

impl Peerstore {
    /// Reads a file; a missing one is empty.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        match files::read_small(path) {
            Ok(text) => Ok(Self::parse(path, &text)),
            Err(ConfigError::Missing(_)) => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    fn parse(path: &Path, text: &str) -> Self {
        let mut peerstore = Self::default();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match line.parse::<Address>() {
                Ok(address) if address.peer().is_some() => {
                    if !peerstore.addresses.contains(&address) {
                        peerstore.addresses.push(address);
                    }
                }
                Ok(_) => peerstore.skip(
                    path,
                    number,
                    &format!("{line:?} names no peer: it must end in /p2p/<peer id>"),
                ),
                Err(problem) => peerstore.skip(path, number, &problem),
            }
        }
        peerstore
    }

    fn skip(&mut self, path: &Path, number: usize, problem: &str) {
        let at = format!("{} line {}", path.display(), number + 1);
        self.warnings.push(format!("{at}: {problem}; skipped"));
    }

    /// Replaces the addresses in a file, atomically, readable by its owner only.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(path: &Path, addresses: &[Address]) -> Result<(), ConfigError> {
        let text: String = addresses
            .iter()
            .map(|address| format!("{}\n", address.0))
            .collect();
        files::write_private(path, text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "12D3KooWGRYZDHBembyGJQqQ6WgLqJWYNjnECJwGBnCg8vbCeo8F";

    #[test]
    fn an_invalid_line_is_skipped_with_its_number() {
        let text = format!(
            "# ours\n/ip4/10.0.0.1/tcp/9096/p2p/{PEER}\n\nnonsense\n/ip4/10.0.0.2/tcp/9096\n\
             /dns4/b/tcp/9096/ipfs/{PEER}\n/ip4/10.0.0.1/tcp/9096/ipfs/{PEER}\n"
        );
        let peerstore = Peerstore::parse(Path::new("peerstore"), &text);
        let shown: Vec<String> = peerstore
            .addresses
            .iter()
            .map(|address| address.0.to_string())
            .collect();
        let expected = [
            format!("/ip4/10.0.0.1/tcp/9096/p2p/{PEER}"),
            format!("/dns4/b/tcp/9096/p2p/{PEER}"),
        ];
        assert_eq!(shown, expected);
        assert_eq!(peerstore.warnings.len(), 2, "{:?}", peerstore.warnings);
        assert!(peerstore.warnings[0].starts_with("peerstore line 4: \"nonsense\" is not a multiaddress"));
        assert!(
            peerstore.warnings[1].starts_with("peerstore line 5: \"/ip4/10.0.0.2/tcp/9096\" names no peer")
        );
    }

    #[test]
    fn saved_addresses_are_read_back_and_a_missing_file_is_empty() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peerstore");
        assert_eq!(Peerstore::load(&path).unwrap(), Peerstore::default());
        let addresses = vec![format!("/ip4/10.0.0.1/tcp/9096/p2p/{PEER}").parse().unwrap()];
        Peerstore::save(&path, &addresses).unwrap();
        assert_eq!(Peerstore::load(&path).unwrap().addresses, addresses);
    }
}
