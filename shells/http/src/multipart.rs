//! Streaming parser of `multipart/form-data`, with bounded memory.
//!
//! Kubo's clients send parts that no HTML form would: dispositions other than `form-data`, metadata in the
//! field name, escaped paths as file names.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use futures::stream::{BoxStream, Stream, StreamExt};

mod head;

pub use self::head::{PartHead, PartKind, boundary};

/// Maximum length of a part's header, in bytes: two paths of 4096 bytes, escaped to three times that.
const HEADER_MAX: usize = 32 * 1024;

/// Failure to read a multipart body.
#[derive(Debug, thiserror::Error)]
pub enum MultipartError {
    /// The connection broke, or the sender violated the HTTP framing.
    #[error("reading the request body: {0}")]
    Read(String),
    /// The body is not valid multipart.
    #[error("multipart: {0}")]
    Format(&'static str),
}

/// End of a part's header.
const HEAD_END: &[u8] = b"\r\n\r\n";

/// A multipart body being read, part by part.
pub struct Multipart {
    body: BoxStream<'static, Result<Bytes, MultipartError>>,
    buffer: BytesMut,
    /// `\r
    /// --boundary`.
    delimiter: Vec<u8>,
    ended: bool,
    stage: Stage,
    /// Length of the prefix of `buffer` known to hold no end of a header.
    searched: usize,
}

impl std::fmt::Debug for Multipart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Multipart")
            .field("buffered", &self.buffer.len())
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Just after a delimiter, before a part's head.
    Between,
    /// In a part's content.
    Content,
    /// After the last delimiter.
    End,
}

impl Multipart {
    /// Starts reading `body`, whose parts are separated by `boundary`.
    pub fn new<E: std::fmt::Display>(
        body: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
        boundary: &str,
    ) -> Self {
        let body = body.map(|piece| piece.map_err(|error| MultipartError::Read(error.to_string())));
        Multipart {
            body: body.boxed(),
            // As if a line ended before the body, so that all delimiters look alike.
            buffer: BytesMut::from(&b"\r\n"[..]),
            delimiter: format!("\r\n--{boundary}").into_bytes(),
            ended: false,
            stage: Stage::Content,
            searched: 0,
        }
    }

    /// Skips the rest of the current part and reads the head of the next; `None` after the last.
    ///
    /// # Errors
    /// [`MultipartError::Read`] if the body cannot be read, [`MultipartError::Format`] if it is malformed.
    pub async fn next_part(&mut self) -> Result<Option<PartHead>, MultipartError> {
        std::future::poll_fn(|cx| self.poll_part(cx)).await
    }

    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<PartHead>, MultipartError>> {
        while self.stage == Stage::Content {
            futures::ready!(self.poll_content(cx))?;
        }
        loop {
            if self.stage == Stage::End {
                return Poll::Ready(Ok(None));
            }
            if self.buffer.starts_with(b"--") {
                self.stage = Stage::End;
                continue;
            }
            // The rest of the delimiter's line is parsed as the first, empty, line of the head. Bytes already
            // searched for the end of the head are not searched again, however small the pieces of the body
            // are.
            let from = self.searched.saturating_sub(HEAD_END.len() - 1);
            let end = find(&self.buffer[from..], HEAD_END).map(|end| from + end);
            if let Some(end) = end.filter(|end| *end <= HEADER_MAX) {
                let head = self.buffer.split_to(end + HEAD_END.len());
                self.stage = Stage::Content;
                self.searched = 0;
                return Poll::Ready(PartHead::parse(&head[..end]).map(Some));
            }
            self.searched = self.buffer.len();
            if end.is_some() || self.buffer.len() > HEADER_MAX {
                return Poll::Ready(Err(MultipartError::Format("a part's header is too long")));
            }
            if self.ended {
                return Poll::Ready(Err(MultipartError::Format("the body ends in a part's header")));
            }
            futures::ready!(self.poll_more(cx))?;
        }
    }

    /// Returns the next piece of the current part's content; `None` at its end.
    ///
    /// # Errors
    /// As [`Multipart::next_part`].
    pub fn poll_content(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, MultipartError>> {
        loop {
            if self.stage != Stage::Content {
                return Poll::Ready(Ok(None));
            }
            match find(&self.buffer, &self.delimiter) {
                Some(0) => {
                    self.buffer.advance(self.delimiter.len());
                    self.stage = Stage::Between;
                    return Poll::Ready(Ok(None));
                }
                Some(end) => return Poll::Ready(Ok(Some(self.buffer.split_to(end).freeze()))),
                None => {}
            }
            // Everything but a possible start of a delimiter is content for sure.
            let sure = self.buffer.len() - possible_start(&self.buffer, &self.delimiter);
            if sure > 0 {
                return Poll::Ready(Ok(Some(self.buffer.split_to(sure).freeze())));
            }
            if self.ended {
                return Poll::Ready(Err(MultipartError::Format(
                    "the body ends before its last boundary",
                )));
            }
            futures::ready!(self.poll_more(cx))?;
        }
    }

    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), MultipartError>> {
        match futures::ready!(self.body.poll_next_unpin(cx)) {
            Some(piece) => self.buffer.extend_from_slice(&piece?),
            None => self.ended = true,
        }
        Poll::Ready(Ok(()))
    }

    /// Returns the content of the current part as a stream.
    pub fn content(&mut self) -> Content<'_> {
        Content { multipart: self }
    }
}

/// Stream of one part's content.
#[derive(Debug)]
pub struct Content<'a> {
    multipart: &'a mut Multipart,
}

impl Stream for Content<'_> {
    type Item = std::io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let piece = futures::ready!(self.multipart.poll_content(cx));
        Poll::Ready(piece.map_err(std::io::Error::other).transpose())
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(haystack, needle)
}

/// Returns how many bytes at the end of `buffer` may be the start of `delimiter`.
fn possible_start(buffer: &[u8], delimiter: &[u8]) -> usize {
    let longest = buffer.len().min(delimiter.len() - 1);
    (1..=longest)
        .rev()
        .find(|length| buffer.ends_with(&delimiter[..*length]))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// Reads all parts of a body that arrives in pieces of `step` bytes.
    async fn read(body: &[u8], step: usize) -> Result<Vec<(PartHead, Vec<u8>)>, MultipartError> {
        let pieces: Vec<_> = body
            .chunks(step)
            .map(|piece| Ok::<_, String>(Bytes::copy_from_slice(piece)))
            .collect();
        let mut multipart = Multipart::new(futures::stream::iter(pieces), "xyz");
        let mut parts = Vec::new();
        while let Some(head) = multipart.next_part().await? {
            let mut content = Vec::new();
            let mut pieces = multipart.content();
            while let Some(piece) = pieces.next().await {
                content.extend_from_slice(&piece.map_err(|error| MultipartError::Read(error.to_string()))?);
            }
            parts.push((head, content));
        }
        Ok(parts)
    }

    const BODY: &str = "ignored\r\n--xyz\r\nContent-Disposition: form-data; name=\"file?mode=0644\"; \
        filename=\"a%2Fb\"\r\nContent-Type: Application/Octet-Stream; q=1\r\n\r\n\
        one\r\n--xy\r\n\r\n--xyz  \r\n\
        content-disposition: file; filename=\"\"\r\n\r\n\r\n--xyz\r\n\r\nthree\r\n--xyz--\r\nignored";

    #[tokio::test]
    async fn parts_are_found_for_any_split_of_the_body() {
        for step in [1, 2, 3, 5, 8, 13, 1000] {
            let parts = read(BODY.as_bytes(), step).await.unwrap();
            let contents: Vec<_> = parts.iter().map(|(_, content)| content.as_slice()).collect();
            assert_eq!(
                contents,
                [&b"one\r\n--xy\r\n"[..], b"", b"three"],
                "in pieces of {step}"
            );
            assert_eq!(parts[0].0.name, "file?mode=0644");
            assert_eq!(parts[0].0.filename.as_deref(), Some(&b"a%2Fb"[..]));
            assert_eq!(parts[0].0.content_type, "application/octet-stream");
            assert_eq!(parts[1].0.filename.as_deref(), Some(&b""[..]));
            assert_eq!(parts[2].0, PartHead::default());
        }
    }

    #[tokio::test]
    async fn body_cut_off_anywhere_is_an_error() {
        let end = BODY.rfind("--xyz--").unwrap() + 7;
        for cut in 0..end {
            assert!(read(&BODY.as_bytes()[..cut], 7).await.is_err(), "cut at {cut}");
        }
    }

    #[tokio::test]
    async fn endless_header_is_refused() {
        let body = format!("--xyz\r\nX: {}", "a".repeat(2 * HEADER_MAX));
        assert!(matches!(
            read(body.as_bytes(), 4096).await,
            Err(MultipartError::Format(_))
        ));
    }

    fn now<T>(work: impl Future<Output = T>) -> T {
        futures::executor::block_on(work)
    }

    fn quoted(text: &[u8]) -> Vec<u8> {
        let escaped = text.iter().flat_map(|byte| match byte {
            b'\\' | b'"' => vec![b'\\', *byte],
            byte => vec![*byte],
        });
        [b'"'].into_iter().chain(escaped).chain([b'"']).collect()
    }

    /// A body of these parts.
    fn written(parts: &[(PartHead, Vec<u8>)]) -> Vec<u8> {
        let mut body = Vec::new();
        for (head, content) in parts {
            let file = head.filename.as_deref().map(quoted);
            let file = file.map_or(Vec::new(), |name| [b"; filename=", &name[..]].concat());
            let lines = [
                b"--xyz\r\nContent-Type: ",
                head.content_type.as_bytes(),
                b"\r\nContent-Disposition: file; name=",
                &quoted(head.name.as_bytes()),
                &file,
            ];
            body.extend_from_slice(&lines.concat());
            body.extend_from_slice(b"\r\n\r\n");
            body.extend_from_slice(content);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"--xyz--\r\n");
        body
    }

    fn parts() -> impl Strategy<Value = Vec<(PartHead, Vec<u8>)>> {
        let file = vec(
            any::<u8>().prop_filter("ends a line", |byte| !b"\r\n".contains(byte)),
            0..8,
        );
        let head = ("[a-z/-]{0,8}", "[^\r\n\\p{Cc}]{0,8}", proptest::option::of(file));
        let head = head.prop_map(|(content_type, name, filename)| PartHead {
            content_type,
            name,
            filename,
            source: None,
        });
        // Mostly bytes that look like delimiters.
        let pieces = prop::sample::select(vec![
            &b"\r\n"[..],
            b"--xy",
            b"--",
            b"z",
            b"-",
            b"\r",
            b"\n",
            b"\0",
        ]);
        let content = vec(pieces, 0..12)
            .prop_map(|pieces| pieces.concat())
            .prop_filter("ends the part", |content| {
                find(&[b"\r\n", &content[..], b"\r"].concat(), b"\r\n--xyz").is_none()
            });
        vec((head, content), 0..4)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn written_parts_are_read_back(parts in parts(), step in 1_usize..60) {
            prop_assert_eq!(now(read(&written(&parts), step)).unwrap(), parts);
        }

        #[test]
        fn arbitrary_bytes_are_parsed_or_refused(
            parts in parts(),
            at in any::<prop::sample::Index>(),
            byte: u8,
            step in 1_usize..60,
            garbage in vec(any::<u8>(), 0..100),
            head in "\\PC{0,40}",
        ) {
            let mut body = written(&parts);
            let at = at.index(body.len());
            body[at] = byte;
            let _ = now(read(&body, step));
            let _ = now(read(&garbage, step));
            let _ = PartHead::parse(format!("\r\nContent-Disposition: {head}").as_bytes());
            let _ = boundary(&head);
            let _ = boundary(&format!("multipart/form-data; boundary={head}"));
        }
    }
}
