//! DNSLink: TXT records at `_dnslink.<domain>` that map a domain to content
//! ([specification](https://dnslink.dev/)).

use crate::Error;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Time limit of one lookup, with its retries.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);
/// Lookups at once; further ones wait. Strangers choose the names.
const LOOKUPS_MAX: usize = 64;
/// Maximum length of a domain, in bytes; the limit of DNS, less the prefix.
const DOMAIN_MAX: usize = 253 - "_dnslink.".len();
/// Limit of the time that an answer is used for.
const TTL_MAX: Duration = Duration::from_secs(24 * 3600);

/// Content that a domain is mapped to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    /// Path: `/ipfs/…` or `/ipns/…`.
    pub(crate) path: String,
    pub(crate) ttl: Duration,
}

/// Resolver of DNSLink records, created at the first use.
#[derive(Debug)]
pub(crate) struct DnsLinks {
    resolver: Mutex<Option<TokioResolver>>,
    lookups: Semaphore,
}

impl Default for DnsLinks {
    fn default() -> Self {
        Self {
            resolver: Mutex::new(None),
            lookups: Semaphore::new(LOOKUPS_MAX),
        }
    }
}

/// Returns whether a text is a domain, rather than a key or a single label.
pub(crate) fn is_domain(text: &str) -> bool {
    let label = |label: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(allowed)
    };
    let domain = text.strip_suffix('.').unwrap_or(text);
    domain.len() <= DOMAIN_MAX && domain.contains('.') && domain.split('.').all(label)
}

impl DnsLinks {
    /// Asks these servers from now on, instead of those of the system.
    pub(crate) fn use_servers(&self, servers: &[SocketAddr]) -> Result<(), Error> {
        let server = |address: &SocketAddr| {
            let mut server = NameServerConfig::new(
                address.ip(),
                true,
                vec![ConnectionConfig::udp(), ConnectionConfig::tcp()],
            );
            server
                .connections
                .iter_mut()
                .for_each(|it| it.port = address.port());
            server
        };
        let config = ResolverConfig::from_parts(None, Vec::new(), servers.iter().map(server).collect());
        let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let resolver = builder.build().map_err(|error| failed("starting", &error))?;
        *crate::store::lock(&self.resolver) = Some(resolver);
        Ok(())
    }

    fn resolver(&self, private: bool) -> Result<TokioResolver, Error> {
        let mut resolver = crate::store::lock(&self.resolver);
        if let Some(resolver) = &*resolver {
            return Ok(resolver.clone());
        }
        if private {
            let why = "the node is private, and asks no DNS server for DNSLink records";
            return Err(Error::NameLookup(why.to_owned()));
        }
        let system = TokioResolver::builder_tokio().and_then(|builder| builder.build());
        let system = system.map_err(|error| failed("starting", &error))?;
        Ok(resolver.insert(system).clone())
    }

    /// Looks up the DNSLink record of a domain. A `private` node asks only configured servers.
    ///
    /// # Errors
    /// [`Error::NoName`] without exactly one valid record; the lookup failed.
    pub(crate) async fn find(&self, domain: &str, private: bool) -> Result<Link, Error> {
        if !is_domain(domain) {
            return Err(Error::NoName(format!("{domain:?} is neither a key nor a domain")));
        }
        let resolver = self.resolver(private)?;
        let fqdn = format!("_dnslink.{}.", domain.trim_end_matches('.'));
        let lookup = async {
            // The semaphore is never closed.
            let _place = self.lookups.acquire().await;
            resolver.txt_lookup(fqdn.as_str()).await
        };
        let answer = match timeout(LOOKUP_TIMEOUT, lookup).await {
            Err(_) => return Err(failed_text(domain, "no answer in time")),
            Ok(Err(error)) if error.is_no_records_found() => return Err(missing(domain)),
            Ok(Err(error)) => return Err(failed_text(domain, &error.to_string())),
            Ok(Ok(answer)) => answer,
        };
        let mut links = Vec::new();
        for record in answer.answers() {
            let RData::TXT(txt) = &record.data else { continue };
            if let Some(path) = linked_path(&txt.txt_data.concat()) {
                let ttl = Duration::from_secs(record.ttl.into()).min(TTL_MAX);
                links.push(Link { path, ttl });
            }
        }
        match links.len() {
            0 => Err(missing(domain)),
            1 => links.pop().ok_or_else(|| missing(domain)),
            count => Err(Error::NoName(format!(
                "{domain} has {count} DNSLink TXT records instead of one"
            ))),
        }
    }
}

/// Returns the path in a TXT record, `dnslink=/ipfs/…`.
fn linked_path(txt: &[u8]) -> Option<String> {
    let path = std::str::from_utf8(txt).ok()?.trim().strip_prefix("dnslink=")?;
    let rest = path.strip_prefix("/ipfs/").or(path.strip_prefix("/ipns/"))?;
    (!rest.is_empty() && !rest.starts_with('/')).then(|| path.to_owned())
}

fn missing(domain: &str) -> Error {
    // The text that Kubo's clients compare.
    Error::NoName(format!(
        "DNSLink lookup for {domain:?} failed: could not resolve name: no valid TXT record"
    ))
}

fn failed(what: &str, error: &dyn std::fmt::Display) -> Error {
    Error::invalid(format!("{what} the DNS resolver: {error}"))
}

fn failed_text(domain: &str, why: &str) -> Error {
    Error::NameLookup(format!("DNSLink lookup for {domain:?} failed: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_told_from_keys_and_addresses_of_hosts() {
        for domain in [
            "example.com",
            "a.b-c.example.com.",
            "en.wikipedia-on-ipfs.org",
            "_x.y",
        ] {
            assert!(is_domain(domain), "{domain}");
        }
        let long = format!("{}.com", "a".repeat(64));
        let longer = "a.".repeat(200);
        for other in ["localhost", "", ".", "a..b", "a b.c", "ü.de", &long, &longer] {
            assert!(!is_domain(other), "{other}");
        }
    }

    #[test]
    fn only_paths_of_content_are_links() {
        assert_eq!(linked_path(b"dnslink=/ipfs/x/y").as_deref(), Some("/ipfs/x/y"));
        assert_eq!(
            linked_path(b"dnslink=/ipns/example.org").as_deref(),
            Some("/ipns/example.org")
        );
        for other in [
            &b"dnslink=/ipfs/"[..],
            b"dnslink=/http/x",
            b"v=spf1 -all",
            b"dnslink=\xff",
        ] {
            assert_eq!(linked_path(other), None);
        }
    }
}
