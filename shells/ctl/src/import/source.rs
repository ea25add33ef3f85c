//! Sources of pins: lines, another cluster, a pinning service.

use super::line::LineParser;
use super::service::Service;
use crate::args::PinImport;
use crate::failure::Failure;
use cluster_api::client::{Lines, Options};
use cluster_api::{Client, Pin, PinType};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::path::Path;

/// Bytes of one line: metadata and origins of the largest pin several times over.
const LINE_MAX: u64 = 16 << 20;

/// Something read from a source.
pub(super) enum Item {
    /// A pin to import.
    Pin(Box<Pin>),
    /// Input that is not a pin: its place and the reason.
    Bad { place: String, why: String },
}

/// Source of pins.
pub(super) enum Source {
    Lines(LineReader),
    Cluster(Box<Lines<Pin>>),
    Service(Box<Service>),
}

impl Source {
    pub(super) async fn open(arguments: &PinImport) -> Result<Self, Failure> {
        if let Some(hosts) = &arguments.from_cluster {
            let auth = arguments.from_basic_auth.as_deref();
            let credentials = auth.map(|given| {
                let (user, password) = given.split_once(':').unwrap_or((given, ""));
                (user.to_owned(), password.to_owned())
            });
            let https = credentials.is_some();
            let options = Options {
                credentials,
                https,
                ..Options::default()
            };
            let client = Client::new(hosts, options)?;
            return Ok(Self::Cluster(Box::new(client.whole_allocations().await?)));
        }
        if let (Some(url), Some(file)) = (&arguments.from_service, &arguments.token_file) {
            return Ok(Self::Service(Box::new(Service::new(url, file)?)));
        }
        LineReader::open(arguments.file.as_deref()).map(Self::Lines)
    }

    /// Returns the next pin, or what should be one; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Item>, Failure> {
        match self {
            Self::Lines(lines) => lines.next(),
            Self::Service(service) => service.next().await,
            Self::Cluster(pins) => match pins.next().await {
                Ok(Some(answer)) => Ok(Some(checked(answer.value))),
                Ok(None) => Ok(None),
                Err(error) => Err(Failure::local("reading the other cluster", error)),
            },
        }
    }
}

/// Refuses the parts of sharded content, which mean nothing one by one.
fn checked(mut pin: Pin) -> Item {
    match pin.pin_type {
        PinType::Data | PinType::Bad => {
            pin.pin_type = PinType::Data;
            Item::Pin(Box::new(pin))
        }
        PinType::Meta | PinType::ClusterDag | PinType::Shard => Item::Bad {
            place: pin.cid,
            why: "it is a part of sharded content, which is not supported".to_owned(),
        },
    }
}

/// Reader of a file or of standard input.
pub(super) struct LineReader {
    input: Box<dyn BufRead>,
    name: String,
    number: u64,
    parser: LineParser,
    /// Pins of the last line that are not returned yet.
    rest: VecDeque<Pin>,
}

impl LineReader {
    fn open(file: Option<&Path>) -> Result<Self, Failure> {
        let (input, name): (Box<dyn BufRead>, _) = match file.filter(|path| *path != "-") {
            None => {
                if io::stdin().is_terminal() {
                    let error = "name a file, or pass lines on standard input: see \"pin import --help\"";
                    return Err(Failure::local("reading standard input", error));
                }
                (Box::new(io::stdin().lock()), "standard input".to_owned())
            }
            Some(path) => {
                let name = path.display().to_string();
                let file = File::open(path)
                    .map_err(|error| Failure::local("opening the list", format!("{name}: {error}")))?;
                (Box::new(BufReader::with_capacity(1 << 18, file)), name)
            }
        };
        Ok(Self {
            input,
            name,
            number: 0,
            parser: LineParser::default(),
            rest: VecDeque::new(),
        })
    }

    fn next(&mut self) -> Result<Option<Item>, Failure> {
        loop {
            if let Some(pin) = self.rest.pop_front() {
                return Ok(Some(checked(pin)));
            }
            let mut line = Vec::new();
            let mut limited = (&mut self.input).take(LINE_MAX);
            let failed = |error| Failure::local("reading the list", error);
            if limited.read_until(b'\n', &mut line).map_err(failed)? == 0 {
                return Ok(None);
            }
            self.number += 1;
            let place = format!("{}:{}", self.name, self.number);
            if line.len() as u64 == LINE_MAX {
                return Err(failed(io::Error::other(format!("{place}: the line is too long"))));
            }
            let parsed = match str::from_utf8(&line) {
                Ok(text) => self.parser.parse(text.trim()),
                Err(_) => Err("it is not UTF-8".to_owned()),
            };
            match parsed {
                Ok(pins) => self.rest.extend(pins),
                Err(why) => return Ok(Some(Item::Bad { place, why })),
            }
        }
    }
}
