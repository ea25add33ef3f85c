//! Minimal HTTP client: tests see status, headers, chunks and trailers, and can send invalid requests. Each
//! request has its own connection.

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// Maximum silence of a server: longer than any answer takes on a busy machine.
pub const SILENCE: Duration = Duration::from_secs(240);

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

/// Sends one request and reads the whole response.
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
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() || method == "POST" {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    send(port, &[head.as_bytes(), body].concat())
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
    let answer = read(&mut BufReader::new(&stream));
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

fn read(reader: &mut impl BufRead) -> io::Result<Answer> {
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
        found.map(|(_, value)| value.clone())
    };
    if header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        loop {
            let size = line(reader)?;
            let size = usize::from_str_radix(size.split(';').next().unwrap_or(""), 16)
                .map_err(|_| bad(format!("not a chunk's size: {size:?}")))?;
            if size == 0 {
                break;
            }
            let start = answer.body.len();
            answer.body.resize(start + size, 0);
            reader.read_exact(&mut answer.body[start..])?;
            line(reader)?;
        }
        answer.trailers = headers(reader)?;
    } else if let Some(length) = header("content-length") {
        let length = length
            .parse()
            .map_err(|_| bad(format!("not a length: {length}")))?;
        answer.body.resize(length, 0);
        reader.read_exact(&mut answer.body)?;
    } else if answer.status != 204 {
        reader.read_to_end(&mut answer.body)?;
    }
    Ok(answer)
}
