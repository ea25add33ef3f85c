//! The file `_redirects` in the root of a website
//! ([specification](https://specs.ipfs.tech/http-gateways/web-redirects-file/)): rules for paths that do not
//! exist. They apply only where the content has an origin of its own.

use std::time::Duration;

use futures::stream::StreamExt;
use hyper::{Response, StatusCode};

use super::Gateway;
use super::content_path::escape;
use super::failure::Refusal;
use super::handler::{Asked, Target, redirect, resolved};
use super::reply::Body;
use super::unixfs::File;
use crate::unixfs::{Kind, Name};
use crate::{DagPath, Error};

/// Limit on the size of the file, in bytes, from the specification.
const FILE_MAX: u64 = 64 * 1024;

/// A line of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    from: String,
    to: String,
    status: StatusCode,
}

/// Answers a request for a path that does not exist.
pub(super) async fn answer(
    gateway: &Gateway,
    asked: &Asked<'_>,
    path: &DagPath,
    ttl: Option<Duration>,
) -> Result<Response<Body>, Refusal> {
    let missing = || {
        let why = format!("failed to resolve {}: no link named that", asked.path);
        Refusal::new(StatusCode::NOT_FOUND, why)
    };
    // The name of a site may resolve to a directory below a root: rules are relative to the site's root.
    let site = path.segments.len().saturating_sub(asked.path.segments.len());
    let (above, below) = path.segments.split_at(site);
    let in_site = |file: &str| DagPath {
        root: path.root,
        segments: above
            .iter()
            .cloned()
            .chain(file.split('/').filter(|it| !it.is_empty()).map(Name::from))
            .collect(),
    };
    let Some(text) = read(gateway, &in_site("_redirects")).await? else {
        return Err(missing());
    };
    let rules = parse(&text).map_err(invalid)?;
    let wanted: String = below.iter().map(|segment| format!("/{segment}")).collect();
    let matched = rules.iter().find_map(|rule| Some((rule, expand(rule, &wanted)?)));
    let Some((rule, to)) = matched else {
        return Err(missing());
    };
    if rule.status.is_redirection() {
        return Ok(redirect(rule.status, &location(&to, asked)));
    }
    let to = to.split(['?', '#']).next().unwrap_or_default();
    let trace = gateway.node.trace(&in_site(to)).await?;
    let target = Target::new(trace, asked.path.is_mutable(), ttl);
    if rule.status == StatusCode::OK {
        return Box::pin(resolved(gateway, asked, &target)).await;
    }
    let (stat, root) = gateway.node.file_root(target.cid).await?;
    if stat.kind != Kind::File {
        let why = format!("{to:?} in _redirects is not a file");
        return Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, why));
    }
    let page = File::page(target.cid, &stat, root);
    page.answer(gateway, asked, &target, rule.status).await
}

fn invalid(why: String) -> Refusal {
    let text = format!("trouble processing _redirects: could not parse _redirects: {why}");
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, text)
}

/// Reads the file; `None` if there is none.
async fn read(gateway: &Gateway, path: &DagPath) -> Result<Option<String>, Refusal> {
    let found = match gateway.node.resolve(path).await {
        Ok(found) => found,
        Err(Error::NoLink { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let stat = gateway.node.file_stat(found.cid).await?;
    if stat.kind != Kind::File {
        return Err(invalid("it is not a file".to_owned()));
    }
    if stat.bytes > FILE_MAX {
        return Err(invalid(format!(
            "redirects file size cannot exceed {FILE_MAX} bytes"
        )));
    }
    let mut content = gateway.node.cat(found.cid, 0, Some(FILE_MAX)).await?;
    let mut bytes = Vec::new();
    while let Some(piece) = content.next().await.transpose()? {
        bytes.extend_from_slice(&piece);
    }
    let text = String::from_utf8(bytes).map_err(|_| invalid("it is not UTF-8".to_owned()))?;
    Ok(Some(text))
}

fn parse(text: &str) -> Result<Vec<Rule>, String> {
    let mut rules = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.split(" #").next().unwrap_or_default().trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line_number = at + 1;
        let words: Vec<&str> = line.split_whitespace().collect();
        let (from, to, status) = match words[..] {
            [from, to] => (from, to, "301"),
            [from, to, status] => (from, to, status),
            _ => return Err(format!("line {line_number}: a rule is FROM TO [STATUS]")),
        };
        if !from.starts_with('/') {
            return Err(format!(
                "line {line_number}: {from:?} does not begin with a slash"
            ));
        }
        if from
            .find('*')
            .is_some_and(|at| at + 1 != from.len() || !from.ends_with("/*"))
        {
            return Err(format!(
                "line {line_number}: an asterisk must be the last segment"
            ));
        }
        let code = status
            .parse::<u16>()
            .ok()
            .filter(|code| matches!(code, 200 | 301 | 302 | 303 | 307 | 308 | 404 | 410 | 451));
        let status = code
            .and_then(|code| StatusCode::from_u16(code).ok())
            .ok_or_else(|| format!("line {line_number}: unsupported redirect status {status:?}"))?;
        let is_url = to.starts_with("http://") || to.starts_with("https://");
        if !(to.starts_with('/') || is_url && status.is_redirection()) {
            return Err(format!("line {line_number}: {to:?} is neither a path nor a URL"));
        }
        rules.push(Rule {
            from: from.to_owned(),
            to: to.to_owned(),
            status,
        });
    }
    Ok(rules)
}

/// Returns where a rule leads for a path, with its placeholders filled in; `None` if it does not match.
fn expand(rule: &Rule, path: &str) -> Option<String> {
    let mut filled: Vec<(&str, String)> = Vec::new();
    let mut wanted = path.trim_matches('/').split('/').filter(|it| !it.is_empty());
    for segment in rule.from.trim_matches('/').split('/').filter(|it| !it.is_empty()) {
        if segment == "*" {
            let rest: Vec<&str> = wanted.by_ref().collect();
            filled.push((":splat", rest.join("/")));
            break;
        }
        let given = wanted.next()?;
        if segment.starts_with(':') && segment.len() > 1 {
            filled.push((segment, given.to_owned()));
        } else if segment != given {
            return None;
        }
    }
    if wanted.next().is_some() {
        return None;
    }
    // Longer names first: one may begin with another.
    filled.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
    let mut to = rule.to.clone();
    for (name, value) in filled {
        let escaped: Vec<String> = value.split('/').map(escape).collect();
        let value = if rule.status.is_redirection() {
            escaped.join("/")
        } else {
            value
        };
        to = to.replace(name, &value);
    }
    Some(to)
}

/// Returns the location of a redirect, with the query of the request.
fn location(to: &str, asked: &Asked<'_>) -> String {
    // A placeholder at the start must not turn the path into another host's.
    let to = match to.starts_with('/') {
        true => format!("/{}", to.trim_start_matches('/')),
        false => to.to_owned(),
    };
    let query = asked.query.suffix();
    match query.strip_prefix('?') {
        Some(rest) if to.contains('?') => format!("{to}&{rest}"),
        Some(_) => format!("{to}{query}"),
        None => to,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn led(file: &str, path: &str) -> Option<(u16, String)> {
        let rules = parse(file).unwrap();
        let found = rules.iter().find_map(|rule| Some((rule, expand(rule, path)?)));
        found.map(|(rule, to)| (rule.status.as_u16(), to))
    }

    #[test]
    fn the_first_matching_rule_applies() {
        let file = "# comment\n/a /one.html\r\n/a /never\n/b /two.html 302\n\
            /posts/:year/:month/:title /articles/:year/:month/:title\n/splat/* /other/:splat 301\n\
            /gone/* /410.html 410 # note\n/* /index.html 200\n";
        assert_eq!(led(file, "/a"), Some((301, "/one.html".to_owned())));
        assert_eq!(led(file, "/b/"), Some((302, "/two.html".to_owned())));
        let posts = Some((301, "/articles/2022/01/x%20y".to_owned()));
        assert_eq!(led(file, "/posts/2022/01/x y"), posts);
        assert_eq!(led(file, "/splat/a/b"), Some((301, "/other/a/b".to_owned())));
        assert_eq!(led(file, "/gone"), Some((410, "/410.html".to_owned())));
        assert_eq!(led(file, "/else"), Some((200, "/index.html".to_owned())));
        assert_eq!(led("/a /b", "/c"), None);
    }

    #[test]
    fn invalid_rules_name_their_line() {
        for line in [
            "/a",
            "a /b",
            "/a /b 301!",
            "/a /b 418",
            "/a/*/b /c",
            "/a b",
            "/a b c d",
            "/a http://x 200",
        ] {
            let why = parse(&format!("/x /y\n{line}\n")).unwrap_err();
            assert!(why.contains("line 2"), "{line}: {why}");
        }
    }
}
