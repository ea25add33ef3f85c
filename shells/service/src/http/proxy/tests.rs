//! Requests to the proxy, before an embedded node.
