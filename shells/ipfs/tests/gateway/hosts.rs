//! Subdomains, and the redirects of websites.

use cluster_ipfs::gateway::Settings;

use super::{Site, v1};
use crate::support::Answer;
use crate::support::dns::FakeDns;

const HOST: &str = "localhost:8080";

async fn start() -> Site {
    Site::start_with(Settings {
        no_fetch: false,
        subdomain_hosts: vec![HOST.to_owned()],
    })
    .await
}

async fn get(site: &Site, host: &str, path: &str) -> Answer {
    site.get_with(path, &[("X-Forwarded-Host", host)]).await
}

#[tokio::test]
async fn roots_are_redirected_to_their_subdomain_and_served_there() {
    let site = start().await;
    let root = site.add(Default::default(), &[("dir/a/b.txt", b"text\n")]).await;
    let label = root.into_v1().unwrap();
    let redirected = get(&site, HOST, &format!("/ipfs/{root}/a?x=1")).await;
    let url = format!("http://{label}.ipfs.{HOST}/a?x=1");
    assert_eq!(
        (redirected.status, redirected.header("location")),
        (301, Some(url.as_str()))
    );
    let host = format!("{label}.ipfs.{HOST}");
    assert_eq!(get(&site, &host, "/a/b.txt").await.text(), "text\n");
    let folder = get(&site, &host, "/a").await;
    assert_eq!((folder.status, folder.header("location")), (301, Some("/a/")));
    let listing = get(&site, &host, "/a/").await.text();
    assert!(listing.contains("<a href=\"/a/b.txt\">b.txt</a>"), "{listing}");
    assert!(listing.contains(&format!("href=\"//{HOST}/ipfs/")), "{listing}");
    // Another base would be another origin for the same content.
    let upper = root
        .into_v1()
        .unwrap()
        .to_string_of_base(multibase::Base::Base36Lower)
        .unwrap();
    let other = get(&site, &format!("{upper}.ipfs.{HOST}"), "/a/").await;
    let url = format!("http://{label}.ipfs.{HOST}/a/");
    assert_eq!(
        (other.status, other.header("location")),
        (301, Some(url.as_str()))
    );
    // Not a redirect to another host.
    let evil = get(&site, &host, "//example.com").await;
    assert_ne!(evil.status, 301);
    // Other hosts have paths.
    assert_eq!(
        get(&site, "127.0.0.1:8080", &format!("/ipfs/{root}/a/b.txt"))
            .await
            .text(),
        "text\n"
    );
}

#[tokio::test]
async fn domains_are_served_at_their_host_and_at_one_label() {
    let site = start().await;
    let root = site.add(v1(), &[("dir/index.html", b"site\n")]).await;
    let record = format!("dnslink=/ipfs/{root}");
    let dns = FakeDns::start(&[("_dnslink.my-site.example.org", &[&record])]).await;
    site.node.use_dns_servers(&[dns.address]).unwrap();
    assert_eq!(get(&site, "my-site.example.org", "/").await.text(), "site\n");
    let label = format!("my--site-example-org.ipns.{HOST}");
    assert_eq!(get(&site, &label, "/").await.text(), "site\n");
    let redirected = get(&site, HOST, "/ipns/my-site.example.org/").await;
    let url = format!("http://my-site.example.org.ipns.{HOST}/");
    assert_eq!(
        (redirected.status, redirected.header("location")),
        (301, Some(url.as_str()))
    );
    assert_eq!(
        get(&site, &format!("my-site.example.org.ipns.{HOST}"), "/")
            .await
            .text(),
        "site\n"
    );
}

#[tokio::test]
async fn redirects_apply_to_missing_paths_of_isolated_sites_only() {
    let site = start().await;
    let rules = b"/redirect-one /one.html\n/302-redirect-two /two.html 302\n/200-index /index.html 200\n\
        /posts/:year/:month/:day/:title /articles/:year/:month/:day/:title 301\n\
        /splat/* /redirected-splat/:splat 301\n/not-found/* /404.html 404\n/gone/* /410.html 410\n\
        /unavail/* /451.html 451\n/existing.html /never 301\n/* /index.html 200\n";
    let root = site
        .add(
            v1(),
            &[
                ("dir/_redirects", rules),
                ("dir/index.html", b"my index"),
                ("dir/404.html", b"my 404"),
                ("dir/410.html", b"my 410"),
                ("dir/451.html", b"my 451"),
                ("dir/existing.html", b"my existing"),
            ],
        )
        .await;
    let host = format!("{root}.ipfs.{HOST}");
    for (path, status, location) in [
        ("/redirect-one", 301, "/one.html"),
        ("/302-redirect-two", 302, "/two.html"),
        (
            "/posts/2022/01/01/hello-world",
            301,
            "/articles/2022/01/01/hello-world",
        ),
        ("/splat/one.html?q=1", 301, "/redirected-splat/one.html?q=1"),
    ] {
        let answer = get(&site, &host, path).await;
        assert_eq!(
            (answer.status, answer.header("location")),
            (status, Some(location)),
            "{path}"
        );
    }
    for (path, status, text, file) in [
        ("/200-index", 200, "my index", "index.html"),
        ("/not-found/x", 404, "my 404", "404.html"),
        ("/gone/x", 410, "my 410", "410.html"),
        ("/unavail/x", 451, "my 451", "451.html"),
        ("/existing.html", 200, "my existing", "existing.html"),
        ("/catch-all", 200, "my index", "index.html"),
    ] {
        let answer = get(&site, &host, path).await;
        assert_eq!((answer.status, answer.text().as_str()), (status, text), "{path}");
        let cid = site.cid(&format!("{root}/{file}")).await;
        assert_eq!(answer.header("etag").unwrap(), format!("\"{cid}\""));
        assert_eq!(
            answer.header("cache-control"),
            Some("public, max-age=29030400, immutable")
        );
    }
    let etag = get(&site, &host, "/catch-all")
        .await
        .header("etag")
        .unwrap()
        .to_owned();
    let known = [
        ("X-Forwarded-Host", host.as_str()),
        ("If-None-Match", etag.as_str()),
    ];
    assert_eq!(site.get_with("/catch-all", &known).await.status, 304);
    // Where other content has the same origin, a site must not redirect.
    let shared = get(&site, "127.0.0.1:8080", &format!("/ipfs/{root}/redirect-one")).await;
    assert_eq!(shared.status, 404);
}

#[tokio::test]
async fn invalid_redirects_files_are_reported() {
    let site = start().await;
    let long = format!("/a /b\n{}", "#".repeat(70_000));
    for (rules, why) in [
        ("/a /b 301!\n", "unsupported redirect status"),
        (long.as_str(), "redirects file size cannot exceed"),
    ] {
        let root = site
            .add(
                v1(),
                &[
                    ("dir/_redirects", rules.as_bytes()),
                    ("dir/found.html", b"my found"),
                ],
            )
            .await;
        let host = format!("{root}.ipfs.{HOST}");
        let refused = get(&site, &host, "/not-found").await;
        assert_eq!(refused.status, 500);
        let text = refused.text();
        assert!(
            text.contains("could not parse _redirects:") && text.contains(why),
            "{text}"
        );
        assert_eq!(get(&site, &host, "/found.html").await.text(), "my found");
    }
}
