//! Hosts: one for all content, or with [`Settings::subdomain_hosts`] one for each root.
//!
//! ```text
//! localhost:8080/ipfs/<cid>/a           -> <cid in base32>.ipfs.localhost:8080/a
//! localhost:8080/ipns/<key>/a           -> <key in base36>.ipns.localhost:8080/a
//! localhost:8080/ipns/a-b.example.org   -> a--b-example-org.ipns.localhost:8080 over HTTPS
//! ```

use std::time::Duration;

use hyper::header::{self, HeaderMap};
use hyper::http::request::Parts;
use multibase::Base;
use tokio::time::timeout;

use super::Gateway;
use super::failure::Refusal;
use crate::dns::is_domain;
use crate::{Cid, ipns};

/// Maximum length of a label of a host name, in bytes.
const LABEL_MAX: usize = 63;

/// Time limit of finding out whether an unknown host has a DNSLink record.
const HOST_TIMEOUT: Duration = Duration::from_secs(5);

/// Origin that browsers take the content for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// All content has the same origin.
    Shared,
    /// The root has a subdomain of its own.
    Subdomain {
        /// Host of the gateway.
        gateway: Option<String>,
    },
    /// The host is the domain whose DNSLink record is the root.
    Domain {
        /// Host of a gateway with other content, if any is known.
        gateway: Option<String>,
    },
}

impl Origin {
    /// Returns whether no other content has the same origin.
    pub(super) fn is_isolated(&self) -> bool {
        *self != Origin::Shared
    }
}

/// Subject of a request, judged by its host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Destination {
    /// The content is at another URL.
    Redirect(String),
    /// Content, by its escaped path.
    Content { path: String, origin: Origin },
}

/// Determines what a request is for.
pub(super) async fn destination(gateway: &Gateway, request: &Parts) -> Result<Destination, Refusal> {
    let path = request.uri.path().to_owned();
    let known = &gateway.settings.subdomain_hosts;
    let shared = |path: String| Destination::Content {
        path,
        origin: Origin::Shared,
    };
    if known.is_empty() {
        return Ok(shared(path));
    }
    let Some(host) = host(&request.headers) else {
        return Ok(shared(path));
    };
    if known.contains(&host) {
        if !(path.starts_with("/ipfs/") || path.starts_with("/ipns/")) {
            return Ok(shared(path));
        }
        let url = subdomain_url(&host, &path, is_https(&request.headers))?;
        let query = request.uri.query().map(|query| format!("?{query}"));
        return Ok(match url {
            Some(url) => Destination::Redirect(url + &query.unwrap_or_default()),
            None => shared(path),
        });
    }
    if let Some((root, namespace, gateway_host)) = split(&host, known) {
        return subdomain(gateway, request, root, namespace, gateway_host).await;
    }
    domain(gateway, &host, path).await
}

/// Returns the host that the client named, in lower case; a proxy passes it on in `X-Forwarded-Host`.
fn host(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("x-forwarded-host").or(headers.get(header::HOST))?;
    Some(value.to_str().ok()?.to_ascii_lowercase())
}

fn is_https(headers: &HeaderMap) -> bool {
    let proto = headers.get("x-forwarded-proto");
    proto.is_some_and(|value| value.as_bytes() == b"https")
}

/// Splits `<root>.<namespace>.<gateway>`.
fn split<'h>(host: &'h str, known: &'h [String]) -> Option<(&'h str, &'h str, &'h str)> {
    known.iter().find_map(|gateway| {
        let rest = host.strip_suffix(gateway.as_str())?.strip_suffix('.')?;
        let (root, namespace) = rest.rsplit_once('.')?;
        matches!(namespace, "ipfs" | "ipns").then_some((root, namespace, gateway.as_str()))
    })
}

async fn subdomain(
    gateway: &Gateway,
    request: &Parts,
    root: &str,
    namespace: &str,
    host: &str,
) -> Result<Destination, Refusal> {
    let path = request.uri.path();
    let mut root = root.to_owned();
    if Cid::try_from(root.as_str()).is_ok() {
        let canonical = label(namespace, &root)?;
        if canonical != root {
            let scheme = if is_https(&request.headers) {
                "https"
            } else {
                "http"
            };
            let query = request.uri.query().map(|query| format!("?{query}"));
            let query = query.unwrap_or_default();
            let url = format!("{scheme}://{canonical}.{namespace}.{host}{path}{query}");
            return Ok(Destination::Redirect(url));
        }
    } else if namespace == "ipns" && !root.contains('.') && root.contains('-') {
        // The domain is more likely than a single label with hyphens.
        let domain = expand(&root);
        if has_link(gateway, &domain).await || !has_link(gateway, &root).await {
            root = domain;
        }
    }
    Ok(Destination::Content {
        path: format!("/{namespace}/{root}{path}"),
        origin: Origin::Subdomain {
            gateway: Some(host.to_owned()),
        },
    })
}

/// Serves a domain with a DNSLink record; other hosts are served as the gateway itself.
async fn domain(gateway: &Gateway, host: &str, path: String) -> Result<Destination, Refusal> {
    let domain = host.split(':').next().unwrap_or_default();
    let is_address = domain.parse::<std::net::Ipv4Addr>().is_ok();
    if !is_address && is_domain(domain) && has_link(gateway, domain).await {
        return Ok(Destination::Content {
            path: format!("/ipns/{domain}{path}"),
            origin: Origin::Domain { gateway: None },
        });
    }
    Ok(Destination::Content {
        path,
        origin: Origin::Shared,
    })
}

async fn has_link(gateway: &Gateway, domain: &str) -> bool {
    let found = timeout(HOST_TIMEOUT, gateway.node.find_dnslink(domain)).await;
    found.is_ok_and(|found| found.is_ok())
}

/// Returns the URL with a subdomain for a path on the host of the gateway.
fn subdomain_url(host: &str, path: &str, https: bool) -> Result<Option<String>, Refusal> {
    let mut parts = path.splitn(4, '/').skip(1);
    let (Some(namespace), Some(root)) = (parts.next(), parts.next()) else {
        return Ok(None);
    };
    let rest = parts.next().unwrap_or_default();
    let root = percent_encoding::percent_decode_str(root).decode_utf8_lossy();
    if root.is_empty() {
        return Ok(None);
    }
    let (scheme, root) = match is_domain(&root) && ipns::parse_name(&root).is_none() {
        // A certificate for a wildcard covers one label.
        true if https => ("https", inline(&root)?),
        true => ("http", root.to_ascii_lowercase()),
        false => (if https { "https" } else { "http" }, label(namespace, &root)?),
    };
    Ok(Some(format!("{scheme}://{root}.{namespace}.{host}/{rest}")))
}

/// Returns the host label of a CID or of the name of a key.
fn label(namespace: &str, root: &str) -> Result<String, Refusal> {
    let name = ipns::parse_name(root).map(|name| ipns::name_cid(&name));
    let cid = match (namespace, name) {
        ("ipns", Some(name)) => name,
        _ => Cid::try_from(root).map_err(|error| Refusal::bad_request(format!("invalid cid: {error}")))?,
    };
    // Names of keys in another codec than theirs are a mistake that browsers remember.
    let codec = match namespace {
        "ipns" => ipns::LIBP2P_KEY,
        _ => cid.codec(),
    };
    let cid = Cid::new_v1(codec, *cid.hash());
    let base = if namespace == "ipns" {
        Base::Base36Lower
    } else {
        Base::Base32Lower
    };
    for base in [base, Base::Base36Lower] {
        let label = cid.to_string_of_base(base);
        let label = label.map_err(|error| Refusal::bad_request(format!("invalid cid: {error}")))?;
        if label.len() <= LABEL_MAX {
            return Ok(label);
        }
    }
    let why = format!("CID incompatible with DNS label length limit of {LABEL_MAX}: {root}");
    Err(Refusal::bad_request(why))
}

/// Encodes a domain as a single host label.
fn inline(domain: &str) -> Result<String, Refusal> {
    let label = domain.to_ascii_lowercase().replace('-', "--").replace('.', "-");
    if label.len() > LABEL_MAX {
        let why =
            format!("inlined DNSLink incompatible with DNS label length limit of {LABEL_MAX}: {label:?}");
        return Err(Refusal::bad_request(why));
    }
    Ok(label)
}

/// Decodes a domain from a single host label.
fn expand(label: &str) -> String {
    label
        .replace("--", "\u{0}")
        .replace('-', ".")
        .replace('\u{0}', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    const V0: &str = "QmZULkCELmmk5XNfCgTnCyFgAVxBRBXyDHGGMVoLFLiXEN";
    const V1: &str = "bafybeiffndsajwhk3lwjewwdxqntmjm4b5wxaaanokonsggenkbw6slwk4";

    #[test]
    fn roots_become_labels() {
        let url = |path: &str| subdomain_url("localhost:8080", path, false);
        assert_eq!(
            url(&format!("/ipfs/{V0}/a/b")).unwrap().unwrap(),
            format!("http://{V1}.ipfs.localhost:8080/a/b")
        );
        let key = "k51qzi5uqu5dlvj2baxnqndepeb86cbk3ng7n3i46uzyxzyqj2xjonzllnv0v8";
        let name = "12D3KooWRBy97UB99e3J6hiPesre1MZeuNQvfan4gBziswrRJsNK";
        assert_eq!(
            url(&format!("/ipns/{name}")).unwrap().unwrap(),
            format!("http://{key}.ipns.localhost:8080/")
        );
        assert_eq!(
            subdomain_url("dweb.link", "/ipns/a-b.example.org/x", true)
                .unwrap()
                .unwrap(),
            "https://a--b-example-org.ipns.dweb.link/x"
        );
        let long = "bafkrgqhhyivzstcz3hhswshfjgy6ertgmnqeleynhwt4dlfsthi4hn7zgh4uvlsb5xncykzapi3ocd4lzoguk\
            ir6ksdy6wzrnz6ohnv4aglcs";
        assert_eq!(url(&format!("/ipfs/{long}")).unwrap_err().status, 400);
    }

    #[test]
    fn hosts_are_split_and_labels_expanded() {
        let known = ["localhost:8080".to_owned()];
        let host = format!("{V1}.ipfs.localhost:8080");
        assert_eq!(split(&host, &known), Some((V1, "ipfs", "localhost:8080")));
        assert_eq!(split("x.http.localhost:8080", &known), None);
        assert_eq!(split("x.ipfs.example.com", &known), None);
        assert_eq!(expand("my-v--long-example-com"), "my.v-long.example.com");
        assert_eq!(inline("my.v-long.example.com").unwrap(), "my-v--long-example-com");
    }
}
