//! Minimal HTTP client: tests see status, headers, chunks and trailers, and can send invalid requests.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// Maximum silence of a server: longer than any answer takes on a busy machine.
pub const SILENCE: Duration = Duration::from_secs(240);

/// Maximum size of a body that is sent before the response is read: far less than sockets buffer.
const SENT_AT_ONCE: usize = 1 << 16;

/// Response of a server.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// HTTP status code.
    pub status: u16,
    /// Headers, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body, without the framing of chunks.
    pub body: Vec<u8>,
    /// Trailers, with names in lower case.
    pub trailers: Vec<(String, String)>,
}

impl Answer {
    /// Returns whether the status is a success, and no trailer reports an error.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status) && self.error().is_none()
    }

    /// Returns the error that a trailer reports.
    pub fn error(&self) -> Option<&str> {
        let named = |name: &&(String, String)| name.0 == "x-stream-error" && !name.1.is_empty();
        self.trailers.iter().find(named).map(|(_, error)| error.as_str())
    }

    /// Returns the body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Decodes the body as one JSON value.
    ///
    /// # Panics
    /// If it is not one.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in the answer {}: {}", self.status, self.text()))
    }

    /// Decodes the body as a stream of JSON values.
    ///
    /// # Panics
    /// If it is not one.
    pub fn values(&self) -> Vec<Value> {
        let values = serde_json::Deserializer::from_slice(&self.body).into_iter();
        values
            .map(|value| value.unwrap_or_else(|error| panic!("{error} in {}", self.text())))
            .collect()
    }
}

/// Connection for several requests, one after the other.
#[derive(Debug)]
pub struct Connection(BufReader<TcpStream>);

impl Connection {
    /// Connects to a port of this machine.
    ///
    /// # Errors
    /// Fails if no server listens.
    pub fn open(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(Some(SILENCE))?;
        Ok(Self(BufReader::with_capacity(1 << 16, stream)))
    }

    /// Sends a request and reads the response, whose body goes to `sink` as it arrives, even while the
    /// request is being sent.
    ///
    /// # Errors
    /// Fails if the connection breaks before the end, or after [`SILENCE`].
    ///
    /// # Panics
    /// Never: the thread that sends does not panic.
    pub fn request(
        &mut self,
        method: &str,
        target: &str,
        body: &[u8],
        sink: &mut dyn FnMut(&[u8]),
    ) -> io::Result<Answer> {
        let head = head(method, target, &[("Host", "127.0.0.1")], body);
        let mut writer = self.0.get_ref();
        if body.len() <= SENT_AT_ONCE {
            writer.write_all(&[head.as_bytes(), body].concat())?;
            return read(&mut self.0, sink);
        }
        let mut writer = writer.try_clone()?;
        std::thread::scope(|scope| {
            let sender = scope.spawn(move || {
                writer.write_all(head.as_bytes())?;
                writer.write_all(body)
            });
            let answer = read(&mut self.0, sink)?;
            sender.join().expect("the sender does not panic").map(|()| answer)
        })
    }
}

/// Sends one request on a connection of its own, and reads the whole response.
///
/// # Errors
/// Fails if no server listens, if the connection breaks before the end, or after [`SILENCE`].
pub fn request(
    port: u16,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Answer> {
    let host = format!("127.0.0.1:{port}");
    let fixed = [("Host", host.as_str()), ("Connection", "close")];
    let head = head(method, target, &[&fixed, headers].concat(), body);
    send(port, &[head.as_bytes(), body].concat())
}

fn head(method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> String {
    let mut head = format!("{method} {target} HTTP/1.1\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() || method == "POST" {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head + "\r\n"
}

/// Sends arbitrary bytes and reads the response.
///
/// # Errors
/// As for [`request`], and if the response is not HTTP.
pub fn send(port: u16, bytes: &[u8]) -> io::Result<Answer> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    let mut writer = stream.try_clone()?;
    let bytes = bytes.to_vec();
    // A server that refuses may respond before it has read everything.
    let sender = std::thread::spawn(move || writer.write_all(&bytes));
    let mut body = Vec::new();
    let answer = read(&mut BufReader::new(&stream), &mut |bytes| {
        body.extend_from_slice(bytes);
    });
    let answer = answer.map(|answer| Answer { body, ..answer });
    let _ = stream.shutdown(std::net::Shutdown::Both);
    let sent = sender.join().expect("the sender does not panic");
    // The error of sending explains more than a missing response.
    if answer.is_err() {
        sent?;
    }
    answer
}

/// Builds multipart form data of files: each has a path in the upload, which may be empty, and content.
pub fn multipart(files: &[(&str, &[u8])]) -> (String, Vec<u8>) {
    let boundary = "a-boundary-that-no-test-adds";
    let mut body = Vec::new();
    for (path, content) in files {
        let name = path.replace('/', "%2F");
        let head = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    (format!("multipart/form-data; boundary={boundary}"), body)
}

fn bad(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn headers(reader: &mut impl BufRead) -> io::Result<Vec<(String, String)>> {
    let mut headers = Vec::new();
    loop {
        let line = line(reader)?;
        if line.is_empty() {
            return Ok(headers);
        }
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| bad(format!("not a header: {line:?}")))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

/// Reads a response, whose body goes to `sink`.
fn read(reader: &mut impl BufRead, sink: &mut dyn FnMut(&[u8])) -> io::Result<Answer> {
    let mut answer = Answer::default();
    loop {
        let first = line(reader)?;
        let status = first
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.split(' ').nth(1));
        answer.status = status
            .and_then(|status| status.parse().ok())
            .ok_or_else(|| bad(format!("not an answer: {first:?}")))?;
        answer.headers = headers(reader)?;
        // Informational responses (1xx) precede the response.
        if answer.status >= 200 {
            break;
        }
    }
    let header = |name: &str| {
        let found = answer.headers.iter().find(|(header, _)| header == name);
        found.map(|(_, value)| value.as_str())
    };
    if header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        loop {
            let size = line(reader)?;
            let size = u64::from_str_radix(size.split(';').next().unwrap_or(""), 16)
                .map_err(|_| bad(format!("not a chunk's size: {size:?}")))?;
            if size == 0 {
                break;
            }
            pass(reader, Some(size), sink)?;
            line(reader)?;
        }
        answer.trailers = headers(reader)?;
    } else if let Some(length) = header("content-length") {
        let length = length
            .parse()
            .map_err(|_| bad(format!("not a length: {length}")))?;
        pass(reader, Some(length), sink)?;
    } else if answer.status != 204 {
        pass(reader, None, sink)?;
    }
    Ok(answer)
}

/// Passes `length` bytes on, or all until the end.
fn pass(reader: &mut impl BufRead, length: Option<u64>, sink: &mut dyn FnMut(&[u8])) -> io::Result<()> {
    let mut reader = reader.take(length.unwrap_or(u64::MAX));
    loop {
        let bytes = reader.fill_buf()?;
        let size = bytes.len();
        if size == 0 {
            break;
        }
        sink(bytes);
        reader.consume(size);
    }
    if length.is_some() && reader.limit() > 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}
