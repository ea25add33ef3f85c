//! Recognises requests that a web page makes without its user's knowledge, for every HTTP API of a peer (the
//! node's own, the cluster's REST API, the IPFS proxy). The APIs decide which pages to trust.
//!
//! There are two attacks. In CSRF, a page of another site sends a request whose answer it need not read: the
//! browser names the page in `Origin`, `Referer` or `Sec-Fetch-Site`. In DNS rebinding, a page's own domain
//! name is made to resolve to this machine, so the browser treats the request as same-origin: only `Host`
//! reveals it, which names that domain. Programs send none of these headers, and a `Host` of their own
//! machine.

use std::net::IpAddr;

use hyper::header::{HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, REFERER};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Returns the origins (`scheme://host[:port]`) of the pages that sent a request, in lower case; `None` for a
/// page that does not identify itself. Empty for programs, and for URLs typed into a browser.
pub fn origins(headers: &HeaderMap) -> Vec<Option<String>> {
    let named = |name: HeaderName, read: fn(&str) -> Option<String>| {
        let values = headers.get_all(name).into_iter();
        values.map(move |value| value.to_str().ok().and_then(read))
    };
    let lower = |origin: &str| Some(origin.to_ascii_lowercase());
    let mut origins: Vec<_> = named(ORIGIN, lower).chain(named(REFERER, origin_of)).collect();
    let foreign = |site: &HeaderValue| site == "cross-site" || site == "same-site";
    if origins.is_empty() && headers.get_all(SEC_FETCH_SITE).iter().any(foreign) {
        origins.push(None);
    }
    origins
}

/// Returns whether an origin is that of the host (`host[:port]`) that the request is for.
pub fn is_same_origin(origin: &str, headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let own = origin.split_once("://").map(|(_, authority)| authority);
    own.zip(host)
        .is_some_and(|(own, host)| own.eq_ignore_ascii_case(host))
}

/// Returns the `Host` of a request if it is a name that an attacker can own: one with a dot in it. Addresses,
/// `localhost` and names without a dot (which only the local network resolves) are not.
pub fn public_host(headers: &HeaderMap) -> Option<String> {
    let host = headers.get(HOST)?;
    // Browsers send no such bytes, so treat them as an unknown host.
    let host = String::from_utf8_lossy(host.as_bytes()).to_ascii_lowercase();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host.as_str(),
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    let name = name.trim_end_matches('.');
    let is_local = bare.parse::<IpAddr>().is_ok() || !name.contains('.') || name.ends_with(".localhost");
    (!is_local).then(|| name.to_owned())
}

/// Returns `scheme://host[:port]` of a URL, in lower case.
pub fn origin_of(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let host = rest.split(['/', '?', '#']).next()?;
    (!scheme.is_empty() && !host.is_empty()).then(|| format!("{scheme}://{host}").to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| {
            let name = HeaderName::from_static(name);
            (name, HeaderValue::from_str(value).unwrap())
        });
        pairs.collect()
    }

    #[test]
    fn pages_are_recognised_by_origin_referer_and_fetch_site() {
        let page = |name: &str| vec![Some(name.to_owned())];
        for (sent, found) in [
            (vec![], vec![]),
            (
                vec![("origin", "http://Evil.example")],
                page("http://evil.example"),
            ),
            (vec![("origin", "null")], page("null")),
            (
                vec![("referer", "https://evil.example:8/a?b#c")],
                page("https://evil.example:8"),
            ),
            (vec![("referer", "nonsense")], vec![None]),
            (vec![("sec-fetch-site", "cross-site")], vec![None]),
            (vec![("sec-fetch-site", "same-site")], vec![None]),
            (vec![("sec-fetch-site", "same-origin")], vec![]),
            (vec![("sec-fetch-site", "none")], vec![]),
        ] {
            assert_eq!(origins(&headers(&sent)), found, "{sent:?}");
        }
    }

    #[test]
    fn public_hosts_have_a_dot() {
        for host in [
            "127.0.0.1:9094",
            "127.0.0.1",
            "[::1]:9094",
            "[::1]",
            "localhost:9094",
            "api.localhost",
            "cluster0:9094",
            "x",
            "",
        ] {
            assert_eq!(public_host(&headers(&[("host", host)])), None, "{host}");
        }
        assert_eq!(public_host(&HeaderMap::new()), None);
        for (host, name) in [
            ("Evil.example:9094", "evil.example"),
            ("evil.example", "evil.example"),
            ("evil.example.:80", "evil.example"),
            ("127.0.0.1.evil.example:9094", "127.0.0.1.evil.example"),
        ] {
            assert_eq!(public_host(&headers(&[("host", host)])).as_deref(), Some(name));
        }
    }

    #[test]
    fn same_origin_is_the_host_of_the_request() {
        let to = headers(&[("host", "127.0.0.1:9094")]);
        assert!(is_same_origin("http://127.0.0.1:9094", &to));
        assert!(is_same_origin("https://127.0.0.1:9094", &to));
        for other in [
            "http://127.0.0.1:80",
            "null",
            "http://localhost:9094",
            "http://127.0.0.1",
        ] {
            assert!(!is_same_origin(other, &to), "{other}");
        }
    }
}
