//! Scopes of routes: what a credential needs, checked for each request before its handler runs.
//!
//! [`Routes`] builds the routers of the REST API and of the pinning service API; each route is given with its
//! scope. [`of_command`] has the scopes of the IPFS proxy's commands.

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::handler::Handler;
use axum::http::{Method, Response, StatusCode};
use axum::middleware::{self, Next};
use axum::routing::{MethodFilter, on};
use cluster_core::{CredentialLimit, Scope};

use super::auth::Caller;
use super::refusals;
use crate::cluster::Cluster;

/// Builds the body of an error response.
pub(super) type ErrorBody = fn(StatusCode, &str) -> Response<Body>;

/// Demand of a route on a caller that [`Auth::admit`](super::auth::Auth::admit) has admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Nothing more.
    Admitted,
    /// This scope.
    Needs(Scope),
}

/// A route and what it demands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) access: Access,
}

/// A router under construction, with the scopes of its routes.
pub(super) struct Routes {
    router: Router<Cluster>,
    table: Vec<Route>,
    /// Label of the API in metrics.
    api: &'static str,
    error: ErrorBody,
}

impl Routes {
    pub(super) fn new(api: &'static str, error: ErrorBody) -> Self {
        let (router, table) = (Router::new(), Vec::new());
        Self {
            router,
            table,
            api,
            error,
        }
    }

    /// Adds a route. `HEAD` goes with `GET`.
    ///
    /// # Panics
    ///
    /// If the route exists, or the method is not one of HTTP's own.
    pub(super) fn route<H, T>(
        mut self,
        method: Method,
        path: &'static str,
        access: Access,
        handler: H,
    ) -> Self
    where
        H: Handler<T, Cluster>,
        T: 'static,
    {
        let filter = MethodFilter::try_from(method.clone()).expect("a method of HTTP");
        let (api, error) = (self.api, self.error);
        let check = move |request: Request, next: Next| check(access, api, error, request, next);
        let handlers = on(filter, handler).route_layer(middleware::from_fn(check));
        self.router = self.router.route(path, handlers);
        self.table.push(Route { method, path, access });
        self
    }

    /// Adds a route that only reads.
    pub(super) fn get<H, T>(self, path: &'static str, access: Access, handler: H) -> Self
    where
        H: Handler<T, Cluster>,
        T: 'static,
    {
        self.route(Method::GET, path, access, handler)
    }

    /// Adds a route of `POST`.
    pub(super) fn post<H, T>(self, path: &'static str, access: Access, handler: H) -> Self
    where
        H: Handler<T, Cluster>,
        T: 'static,
    {
        self.route(Method::POST, path, access, handler)
    }

    /// Adds a route of `DELETE`.
    pub(super) fn delete<H, T>(self, path: &'static str, access: Access, handler: H) -> Self
    where
        H: Handler<T, Cluster>,
        T: 'static,
    {
        self.route(Method::DELETE, path, access, handler)
    }

    /// Returns the router and the table of its routes.
    pub(super) fn finish(self) -> (Router<Cluster>, Vec<Route>) {
        (self.router, self.table)
    }
}

async fn check(
    access: Access,
    api: &'static str,
    error: ErrorBody,
    request: Request,
    next: Next,
) -> Response<Body> {
    if let Access::Needs(needed) = access {
        let caller = request.extensions().get::<Caller>();
        if let Err(why) = require(caller.unwrap_or(&Caller::Nobody), needed, api) {
            return error(StatusCode::FORBIDDEN, &why);
        }
    }
    next.run(request).await
}

/// Checks that a caller has a scope; counts and logs a refusal.
///
/// # Errors
///
/// The reason for display, which names the scope.
pub(super) fn require(caller: &Caller, needed: Scope, api: &'static str) -> Result<(), String> {
    if caller.may(needed) {
        return Ok(());
    }
    let name = caller.name().unwrap_or_default();
    let why = format!(
        "forbidden: the credential {name:?} lacks the scope {:?}",
        needed.name()
    );
    refusals::note(api, "scope", &why);
    Err(why)
}

/// Commands of the IPFS proxy, between spaces.
struct Commands(&'static str);

impl Commands {
    fn iter(&self) -> impl Iterator<Item = &'static str> {
        self.0.split_whitespace()
    }

    fn contains(&self, command: &str) -> bool {
        self.iter().any(|known| known == command)
    }
}

/// Commands of the IPFS proxy that only read, whatever their options. `repo/verify` is not among them: it can
/// drop blocks.
const READS: Commands = Commands(
    "\
    bitswap/ledger bitswap/stat bitswap/wantlist block/get block/stat cat cid/base32 cid/bases \
    cid/codecs cid/format cid/hashes commands dag/export dag/get dag/resolve dag/stat files/ls \
    files/read files/stat get id ls multibase/decode multibase/list name/resolve pin/ls pin/verify refs \
    refs/local repo/stat repo/version resolve routing/findpeer routing/findprovs routing/get \
    stats/bitswap stats/bw stats/repo version",
);

/// Commands of the IPFS proxy, among those that read, whose answers show what others have pinned, added or
/// asked for.
const READS_OF_ALL: Commands = Commands(
    "bitswap/ledger bitswap/stat bitswap/wantlist files/ls files/read files/stat pin/verify refs/local",
);

/// Commands of the IPFS proxy that pin or unpin in the cluster.
const PINS: Commands = Commands("pin/add pin/rm pin/update");

/// Commands of the IPFS proxy that add content.
const ADDS: Commands = Commands("add block/put dag/import dag/put");

/// Checks that a caller that acts on its own pins only asks the proxy for nothing else, and that one whose
/// uploads are limited does not upload where they are not measured; counts and logs a refusal.
///
/// # Errors
/// The reason for display.
pub(super) fn require_unrestricted(caller: &Caller, path: &str, api: &'static str) -> Result<(), String> {
    let Caller::Credential(credential) = caller else {
        return Ok(());
    };
    let command = path.strip_prefix("/api/v0/").unwrap_or(path);
    let command = command.strip_suffix('/').unwrap_or(command);
    let name = &credential.name;
    let is_limited = |limit: &CredentialLimit| matches!(limit, CredentialLimit::Bytes(_));
    let why = if credential.owner().is_some() && READS_OF_ALL.contains(command) {
        format!(
            "forbidden: the credential {name:?} has the scope \"own\", and {command} shows the data of all"
        )
    } else if credential.limits.iter().any(is_limited) && ADDS.contains(command) {
        format!("forbidden: the bytes of the credential {name:?} are limited: upload with the REST API")
    } else {
        return Ok(());
    };
    refusals::note(api, "scope", &why);
    Err(why)
}

/// Returns all commands of the proxy that a scope other than `admin` permits, with that scope.
#[cfg(test)]
pub(super) fn commands() -> impl Iterator<Item = (&'static str, Scope)> {
    let with = |scope| move |command| (command, scope);
    let reads = READS.iter().map(with(Scope::Read));
    reads
        .chain(PINS.iter().map(with(Scope::Pin)))
        .chain(ADDS.iter().map(with(Scope::Add)))
}

/// Returns whether a command of the proxy shows the data of all, so that it is denied to owners.
#[cfg(test)]
pub(super) fn shows_all(command: &str) -> bool {
    READS_OF_ALL.contains(command)
}

/// Returns the scope that a path of the IPFS proxy needs. What is not known to be harmless needs `admin`: it
/// controls the IPFS node.
pub(super) fn of_command(path: &str) -> Scope {
    let Some(command) = path.strip_prefix("/api/v0/") else {
        return Scope::Admin;
    };
    let command = command.strip_suffix('/').unwrap_or(command);
    // Some commands take their argument as the last segment.
    let above = command.rsplit_once('/').map(|(above, _)| above);
    let with_argument = above.filter(|above| ["pin/add", "pin/rm", "pin/ls"].contains(above));
    let command = with_argument.unwrap_or(command);
    if READS.contains(command) {
        Scope::Read
    } else if PINS.contains(command) {
        Scope::Pin
    } else if ADDS.contains(command) {
        Scope::Add
    } else {
        Scope::Admin
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_commands_of_the_proxy_need_admin() {
        for (path, scope) in [
            ("/api/v0/pin/ls", Scope::Read),
            ("/api/v0/pin/ls/Qm", Scope::Read),
            ("/api/v0/cat", Scope::Read),
            ("/api/v0/pin/add/Qm", Scope::Pin),
            ("/api/v0/pin/rm/", Scope::Pin),
            ("/api/v0/pin/update", Scope::Pin),
            ("/api/v0/add", Scope::Add),
            ("/api/v0/add/x", Scope::Admin),
            ("/api/v0/cat/x", Scope::Admin),
            ("/api/v0/repo/gc", Scope::Admin),
            ("/api/v0/config", Scope::Admin),
            ("/api/v0/shutdown", Scope::Admin),
            ("/api/v0/", Scope::Admin),
            ("/webui", Scope::Admin),
            ("/", Scope::Admin),
        ] {
            assert_eq!(of_command(path), scope, "{path}");
        }
    }
}
