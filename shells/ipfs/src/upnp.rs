//! Client of a router's port forwarding: the services `WANIPConnection` and `WANPPPConnection` of the UPnP
//! [Internet Gateway Device](https://openconnectivity.org/developer/specifications/upnp-resources/upnp/).
//!
//! ```text
//! M-SEARCH (SSDP, multicast)  ->  address of the router's description
//! GET description             ->  address of its service
//! POST action (SOAP)          ->  GetExternalIPAddress, AddPortMapping, DeletePortMapping
//! ```
//!
//! Any machine of the local network can answer in the router's place. Therefore descriptions and requests
//! stay at the private address that the answer came from, answers are short and must arrive in time, and XML
//! is searched for elements by name instead of parsed: `igd-next`, which libp2p uses, reads bodies without a
//! limit and descends into elements by recursion, so that one answer could end the process.

use crate::outbound_http::{HttpClient, HttpError};
use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderName};
use hyper::{Method, StatusCode, Uri};
use std::fmt::Display;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::timeout;
use url::{Host, Url};

/// Address of searches.
const MULTICAST: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 255, 255, 250), 1900);
/// A search. Devices answer within `MX` seconds; those of version 2 answer to version 1 too.
const SEARCH: &str = "M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\n\
                      MX: 1\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n\r\n";
/// Number of searches: they may be lost.
const SEARCHES: usize = 2;
/// Time limit for answers to one search.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(2);
/// Limit on answers that are read after one search.
const ANSWERS_MAX: usize = 16;
/// Limit on the bytes of an answer; such datagrams are not fragmented.
const DATAGRAM_MAX: usize = 1500;
/// Limit on the bytes of a description or of the response to an action.
const BODY_MAX: usize = 64 << 10;
/// Time limit of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Services that forward ports.
const SERVICES: [&str; 3] = [
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
];
/// Error code of a port that is forwarded to somebody else.
const CONFLICT: u16 = 718;
/// Description of the forwarding in the router's list.
const DESCRIPTION: &str = "ipfs-cluster";

/// Failure of the router or of the search for it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpnpError {
    /// No device answers.
    #[error("no router answers")]
    NotFound,
    /// A socket fails.
    #[error("searching the router: {0}")]
    Io(#[from] std::io::Error),
    /// The router cannot be asked.
    #[error("asking the router: {0}")]
    Http(#[from] HttpError),
    /// The router refuses an action.
    #[error("the router refuses it with error {0}")]
    Refused(u16),
    /// An answer lacks something.
    #[error("the router's answer is invalid: {0}")]
    Invalid(&'static str),
}

impl UpnpError {
    /// Returns whether another port may be free.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self, UpnpError::Refused(CONFLICT))
    }
}

/// Transport of a forwarded port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Udp,
}

impl Transport {
    fn name(self) -> &'static str {
        match self {
            Transport::Tcp => "TCP",
            Transport::Udp => "UDP",
        }
    }
}

/// A port of the router that is forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Forwarding {
    pub(crate) transport: Transport,
    /// Port of the router.
    pub(crate) external: u16,
    /// Address in the local network.
    pub(crate) internal: SocketAddrV4,
}

/// Name and value of an action's argument.
type Argument<'a> = (&'a str, &'a (dyn Display + Sync));

/// A router that forwards ports.
#[derive(Debug, Clone)]
pub(crate) struct Router {
    /// Address of its service.
    control: Uri,
    /// Type of its service.
    service: &'static str,
    local_address: Ipv4Addr,
}

impl Router {
    /// Searches the router of the local network.
    ///
    /// # Errors
    /// [`UpnpError::NotFound`] if no router answers; the sockets fail.
    pub(crate) async fn find(client: &HttpClient) -> Result<Router, UpnpError> {
        let local = local_address().await?;
        let socket = UdpSocket::bind((local, 0)).await?;
        for _ in 0..SEARCHES {
            socket.send_to(SEARCH.as_bytes(), MULTICAST).await?;
            if let Ok(found) = timeout(SEARCH_TIMEOUT, first_answer(client, &socket, local)).await {
                return found;
            }
        }
        Err(UpnpError::NotFound)
    }

    /// Returns the address of this machine in the router's network.
    pub(crate) fn local_address(&self) -> Ipv4Addr {
        self.local_address
    }

    /// Returns the address of the router in the public network, as far as it knows.
    ///
    /// # Errors
    /// The router cannot be asked, or refuses.
    pub(crate) async fn external_address(&self, client: &HttpClient) -> Result<Ipv4Addr, UpnpError> {
        let answer = self.act(client, "GetExternalIPAddress", &[]).await?;
        let address = element(&answer, "NewExternalIPAddress").and_then(|text| text.parse().ok());
        address.ok_or(UpnpError::Invalid("it has no external address"))
    }

    /// Forwards a port for the time of a lease, or extends it.
    ///
    /// # Errors
    /// The router cannot be asked, or refuses.
    pub(crate) async fn forward(
        &self,
        client: &HttpClient,
        forwarding: Forwarding,
        lease: Duration,
    ) -> Result<(), UpnpError> {
        let Forwarding {
            transport,
            external,
            internal,
        } = forwarding;
        let arguments: [Argument<'_>; 8] = [
            ("NewRemoteHost", &""),
            ("NewExternalPort", &external),
            ("NewProtocol", &transport.name()),
            ("NewInternalPort", &internal.port()),
            ("NewInternalClient", internal.ip()),
            ("NewEnabled", &1),
            ("NewPortMappingDescription", &DESCRIPTION),
            ("NewLeaseDuration", &lease.as_secs()),
        ];
        self.act(client, "AddPortMapping", &arguments).await?;
        Ok(())
    }

    /// Ends the forwarding of a port.
    ///
    /// # Errors
    /// The router cannot be asked, or refuses.
    pub(crate) async fn stop(&self, client: &HttpClient, forwarding: Forwarding) -> Result<(), UpnpError> {
        let arguments: [Argument<'_>; 3] = [
            ("NewRemoteHost", &""),
            ("NewExternalPort", &forwarding.external),
            ("NewProtocol", &forwarding.transport.name()),
        ];
        self.act(client, "DeletePortMapping", &arguments).await?;
        Ok(())
    }

    /// Calls an action of the service. Returns the response's body. The arguments are in the order of the
    /// service's definition, on which some routers insist.
    async fn act(
        &self,
        client: &HttpClient,
        action: &str,
        arguments: &[Argument<'_>],
    ) -> Result<String, UpnpError> {
        let service = self.service;
        let arguments = arguments.iter();
        let arguments: String = arguments
            .map(|(name, value)| format!("<{name}>{value}</{name}>"))
            .collect();
        let body = format!(
            "<?xml version=\"1.0\"?>\r\n<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
             s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body>\
             <u:{action} xmlns:u=\"{service}\">{arguments}</u:{action}></s:Body></s:Envelope>\r\n"
        );
        let quoted = format!("\"{service}#{action}\"");
        let headers = [
            (CONTENT_TYPE, "text/xml; charset=\"utf-8\""),
            (HeaderName::from_static("soapaction"), quoted.as_str()),
        ];
        let asking = client.send(Method::POST, self.control.clone(), &headers, Bytes::from(body));
        let (status, body) = read(asking).await?;
        match status {
            StatusCode::OK => Ok(body),
            _ => match element(&body, "errorCode").and_then(|code| code.parse().ok()) {
                Some(code) => Err(UpnpError::Refused(code)),
                None => Err(UpnpError::Invalid("it is an error without a code")),
            },
        }
    }
}

/// Reads a response as text.
async fn read(
    asking: impl Future<Output = Result<crate::outbound_http::Response, HttpError>>,
) -> Result<(StatusCode, String), UpnpError> {
    let reading = async {
        let response = asking.await?;
        let status = response.status;
        let body = response.bytes(BODY_MAX).await?;
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    timeout(REQUEST_TIMEOUT, reading)
        .await
        .unwrap_or(Err(UpnpError::Http(HttpError::TimedOut)))
}

/// Returns the first router among the devices that answer a search.
async fn first_answer(
    client: &HttpClient,
    socket: &UdpSocket,
    local_address: Ipv4Addr,
) -> Result<Router, UpnpError> {
    let mut buffer = [0; DATAGRAM_MAX];
    for _ in 0..ANSWERS_MAX {
        let (length, SocketAddr::V4(from)) = socket.recv_from(&mut buffer).await? else {
            continue;
        };
        let answer = String::from_utf8_lossy(&buffer[..length]);
        let Some(location) = location_of(&answer, *from.ip()) else {
            continue;
        };
        match describe(client, &location, *from.ip()).await {
            Ok((service, control)) => {
                return Ok(Router {
                    control,
                    service,
                    local_address,
                });
            }
            Err(error) => tracing::debug!(%location, %error, "a device is no router that forwards ports"),
        }
    }
    Err(UpnpError::NotFound)
}

/// Returns the address of a device's description; `None` unless it is at the private address that the answer
/// came from.
fn location_of(answer: &str, from: Ipv4Addr) -> Option<Url> {
    let mut lines = answer.lines();
    if !lines.next()?.starts_with("HTTP/1.1 200") {
        return None;
    }
    let location = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("location").then(|| value.trim())
    });
    let url: Url = location?.parse().ok()?;
    is_at(&url, from).then_some(url)
}

fn is_at(url: &Url, address: Ipv4Addr) -> bool {
    url.scheme() == "http" && url.host() == Some(Host::Ipv4(address)) && address.is_private()
}

/// Returns the address of this machine in the network that searches are sent to.
async fn local_address() -> Result<Ipv4Addr, UpnpError> {
    // Sends nothing: it chooses the interface.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    socket.connect(MULTICAST).await?;
    match socket.local_addr()? {
        SocketAddr::V4(local) => Ok(*local.ip()),
        SocketAddr::V6(_) => Err(UpnpError::NotFound),
    }
}

/// Reads the description of a device. Returns the type and the address of its service.
async fn describe(
    client: &HttpClient,
    location: &Url,
    address: Ipv4Addr,
) -> Result<(&'static str, Uri), UpnpError> {
    let (status, description) = read(client.get(uri_of(location)?, "text/xml")).await?;
    if status != StatusCode::OK {
        return Err(UpnpError::Invalid("it has no description"));
    }
    let (service, path) = service_in(&description).ok_or(UpnpError::Invalid("it forwards no ports"))?;
    let control = location.join(path).ok().filter(|control| is_at(control, address));
    let control = control.ok_or(UpnpError::Invalid("its service is elsewhere"))?;
    Ok((service, uri_of(&control)?))
}

fn uri_of(url: &Url) -> Result<Uri, UpnpError> {
    url.as_str()
        .parse()
        .map_err(|_| UpnpError::Invalid("its address is invalid"))
}

/// Returns the first service that forwards ports, and its address.
fn service_in(description: &str) -> Option<(&'static str, &str)> {
    let mut rest = description;
    while let Some(start) = rest.find("<service>") {
        let end = rest[start..]
            .find("</service>")
            .map_or(rest.len(), |end| start + end);
        let service = &rest[start..end];
        let kind = element(service, "serviceType");
        let known = SERVICES.into_iter().find(|known| kind == Some(*known));
        if let (Some(known), Some(path)) = (known, element(service, "controlURL")) {
            return Some((known, path));
        }
        rest = &rest[end..];
    }
    None
}

/// Returns the text of the first element with this name.
fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let opening = format!("<{name}");
    let after = text.match_indices(&opening).find_map(|(at, _)| {
        let after = &text[at + opening.len()..];
        after.starts_with(['>', ' ']).then_some(after)
    })?;
    let content = &after[after.find('>')? + 1..];
    Some(content[..content.find("</")?].trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn description_is_fetched_only_from_the_private_address_that_answered() {
        let from = Ipv4Addr::new(192, 168, 1, 1);
        let answer = |status: &str, location: &str| {
            format!("HTTP/1.1 {status}\r\nST: x\r\nLocation: {location}\r\nEXT:\r\n\r\n")
        };
        let found = location_of(&answer("200 OK", "http://192.168.1.1:5000/root.xml"), from);
        assert_eq!(found.unwrap().as_str(), "http://192.168.1.1:5000/root.xml");
        for (status, location) in [
            ("200 OK", "http://192.168.1.2:5000/root.xml"),
            ("200 OK", "http://router.example:5000/root.xml"),
            ("200 OK", "https://192.168.1.1/root.xml"),
            ("200 OK", "nonsense"),
            ("404 Not Found", "http://192.168.1.1/root.xml"),
        ] {
            assert_eq!(
                location_of(&answer(status, location), from),
                None,
                "{status} {location}"
            );
        }
        let public = Ipv4Addr::new(1, 2, 3, 4);
        assert_eq!(
            location_of(&answer("200 OK", "http://1.2.3.4/root.xml"), public),
            None
        );
    }

    #[test]
    fn services_and_elements_are_found_in_nested_and_in_broken_documents() {
        let service = |kind: &str, path: &str| {
            format!(
                "<service><serviceType>{kind}</serviceType><controlURL>{path}</controlURL>\
                 <SCPDURL>/x</SCPDURL></service>"
            )
        };
        let other = service("urn:schemas-upnp-org:service:Layer3Forwarding:1", "/l3f");
        let wanted = service(SERVICES[1], "/ctl/IPConn");
        let nested = format!("<root><device><serviceList>{other}</serviceList><device>{wanted}</device>");
        assert_eq!(service_in(&nested), Some((SERVICES[1], "/ctl/IPConn")));
        assert_eq!(service_in(&other), None);
        assert_eq!(service_in("<service><serviceType>"), None);
        assert_eq!(service_in(&"<service>".repeat(10_000)), None);
        let typed = "<NewExternalIPAddress dt:dt=\"string\"> 1.2.3.4 </NewExternalIPAddress>";
        assert_eq!(element(typed, "NewExternalIPAddress"), Some("1.2.3.4"));
        assert_eq!(
            element(
                "<errorCodes>1</errorCodes><errorCode>718</errorCode>",
                "errorCode"
            ),
            Some("718")
        );
        assert_eq!(element("<errorCode", "errorCode"), None);
        assert_eq!(element("<errorCode>7", "errorCode"), None);
    }
}
