//! HTTP as it goes over the wire, so that a test sees status, headers, chunks and trailers, and can send
//! what no client would. One connection for each request.

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// How long a server may be silent: longer than any answer takes on a busy machine.
pub const SILENCE: Duration = Duration::from_secs(90);

/// What a server answered.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// Its status code.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// Without the framing of chunks.
    pub body: Vec<u8>,
    /// Headers after the last chunk, names in lower case.
    pub trailers: Vec<(String, String)>,
}

impl Answer {
    /// Whether the status is one of success, and no trailer tells of an error.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status) && self.error().is_none()
    }

    /// The error after the last chunk.
    pub fn error(&self) -> Option<&str> {
        let named = |name: &&(String, String)| name.0 == "x-stream-error" && !name.1.is_empty();
        self.trailers.iter().find(named).map(|(_, error)| error.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as one JSON value.
    ///
    /// # Panics
    /// It is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in the answer {}: {}", self.status, self.text()))
    }

    /// The body as a stream of JSON values.
    ///
    /// # Panics
    /// It is none.
    pub fn values(&self) -> Vec<Value> {
        let values = serde_json::Deserializer::from_slice(&self.body).into_iter();
        values
            .map(|value| value.unwrap_or_else(|error| panic!("{error} in {}", self.text())))
            .collect()
    }
}

/// Sends one request and reads the answer to its end.
///
/// # Errors
/// Nobody listens, the connection broke before the end, or there was silence.
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

/// Sends these bytes, whatever they are, and reads the answer.
///
/// # Errors
/// As for [`request`], and when the answer is not HTTP.
pub fn send(port: u16, bytes: &[u8]) -> io::Result<Answer> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    let mut writer = stream.try_clone()?;
    let bytes = bytes.to_vec();
    // A server that refuses may answer before it has read everything.
    let sender = std::thread::spawn(move || writer.write_all(&bytes));
    let answer = read(&mut BufReader::new(&stream));
    let _ = stream.shutdown(std::net::Shutdown::Both);
    let sent = sender.join().expect("the sender does not panic");
    // Why it could not be sent says more than that no answer came.
    if answer.is_err() {
        sent?;
    }
    answer
}

/// Multipart form data with these files: a path in the upload, or none, and the content.
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
        // 1xx come before the answer.
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
