//! Running and recent calls of the API, for `diag/cmds`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cluster_http::GoDuration;
use cluster_http::rpc::Failure;
use futures::stream::{self, StreamExt};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

use super::reply::Reply;
use super::request::Call;
use crate::store::lock;

/// Limit on calls that are kept, running or ended. The oldest ended one makes room; while all run, further
/// calls are not listed.
const CALLS_MAX: usize = 512;
/// Limit on the arguments that are kept of one call, and on the bytes of each argument and option.
const ARGS_MAX: usize = 16;
const TEXT_MAX: usize = 256;
/// Time for which ended calls are kept; Kubo's default.
const KEEP: Duration = Duration::from_secs(3600);
/// Go's zero time.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// A call, with its keys in Kubo's order.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    start_time: String,
    end_time: String,
    active: bool,
    command: &'static str,
    options: Map<String, Value>,
    args: Vec<String>,
    #[serde(rename = "ID")]
    id: u64,
    #[serde(skip)]
    ended: Option<Instant>,
}

#[derive(Debug)]
struct State {
    entries: VecDeque<Entry>,
    next: u64,
    keep: Duration,
}

impl State {
    fn remove_expired(&mut self, now: Instant) {
        let keep = self.keep;
        self.entries.retain(|entry| {
            let ended = entry.ended;
            ended.is_none_or(|ended| now.duration_since(ended) < keep)
        });
    }
}

/// The log of calls.
#[derive(Debug)]
pub(super) struct RequestLog(Mutex<State>);

/// A running call; its drop ends it.
#[derive(Debug)]
pub(super) struct Running {
    log: Arc<RequestLog>,
    id: u64,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = lock(&self.log.0);
        if let Some(entry) = state.entries.iter_mut().find(|entry| entry.id == self.id) {
            entry.active = false;
            entry.end_time = Timestamp::now().to_string();
            entry.ended = Some(Instant::now());
        }
    }
}

/// Returns the start of a text.
fn start_of(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_MAX)].to_owned()
}

impl RequestLog {
    pub(super) fn new() -> RequestLog {
        RequestLog(Mutex::new(State {
            entries: VecDeque::new(),
            next: 0,
            keep: KEEP,
        }))
    }

    /// Adds a call.
    pub(super) fn begin(self: &Arc<Self>, call: &Call) -> Running {
        let mut state = lock(&self.0);
        state.remove_expired(Instant::now());
        if state.entries.len() >= CALLS_MAX
            && let Some(oldest) = state.entries.iter().position(|entry| !entry.active)
        {
            state.entries.remove(oldest);
        }
        let id = state.next;
        state.next += 1;
        if state.entries.len() < CALLS_MAX {
            let options = call.options().iter();
            state.entries.push_back(Entry {
                start_time: Timestamp::now().to_string(),
                end_time: NEVER.to_owned(),
                active: true,
                command: call.command.path,
                options: options
                    .map(|(name, value)| ((*name).to_owned(), Value::from(start_of(value))))
                    .collect(),
                args: call
                    .args
                    .iter()
                    .take(ARGS_MAX)
                    .map(|arg| start_of(&arg.to_string()))
                    .collect(),
                id,
                ended: None,
            });
        }
        Running {
            log: self.clone(),
            id,
        }
    }
}

/// Handles `diag/cmds`.
pub(super) async fn list(call: Call) -> Result<Reply, Failure> {
    let entries: Vec<Entry> = {
        let mut state = lock(&call.log.0);
        state.remove_expired(Instant::now());
        state.entries.iter().cloned().collect()
    };
    Reply::once(&entries)
}

/// Handles `diag/cmds/clear`: forgets the calls that have ended.
pub(super) async fn clear(call: Call) -> Result<Reply, Failure> {
    lock(&call.log.0).entries.retain(|entry| entry.active);
    Ok(Reply::Objects(stream::empty().boxed()))
}

/// Handles `diag/cmds/set-time`: sets the time for which calls that have ended are kept.
pub(super) async fn set_time(call: Call) -> Result<Reply, Failure> {
    let text = call.text_arg(0)?;
    let keep = text.parse::<GoDuration>().ok().and_then(GoDuration::to_std);
    let keep = keep.ok_or_else(|| Failure::failed(format!("time: invalid duration {text:?}")))?;
    lock(&call.log.0).keep = keep;
    Ok(Reply::Objects(stream::empty().boxed()))
}
