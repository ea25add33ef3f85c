//! Execution of commands, one function each.

mod add;
mod auth;
mod drain;
mod pin;
mod rebalance;

use crate::args::{Cli, Command, Events, Global, Health, Ipfs, OneOrAll, Peers, Pin, PinLs, Scrub, Status};
use crate::failure::{Failure, print_stderr};
use crate::graph;
use crate::output::Output;
use crate::validate;
use clap::CommandFactory;
use cluster_api::client::Options;
use cluster_api::{Client, ClientError, Query, StatusFilter};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Client, and output for its results.
struct Session {
    client: Client,
    output: Output,
}

/// Runs the command of the command line.
pub(crate) async fn run(cli: Cli) -> Result<(), Failure> {
    let Some(command) = cli.command else {
        return help();
    };
    // Some commands need no cluster.
    if let Command::Completions { shell } = command {
        return completions(shell);
    }
    if let Command::Man { folder } = command {
        return manual(&folder);
    }
    if matches!(command, Command::Commands(_)) {
        let mut output = Output::new(cli.global.encoding);
        list_commands(&mut output)?;
        return output.flush();
    }
    let mut session = Session {
        client: connect(&cli.global, wants_fresh(&command))?,
        output: Output::new(cli.global.encoding),
    };
    dispatch(&mut session, command).await?;
    session.output.flush()
}

async fn dispatch(session: &mut Session, command: Command) -> Result<(), Failure> {
    let Session { client, output } = session;
    match command {
        Command::Id(_) => output.show(&client.id().await?),
        Command::Version(_) => output.show(&client.version().await?),
        Command::Peers(Peers::Ls(_)) => output.show_all(client.peers().await?).await,
        Command::Peers(Peers::Add { peer }) => {
            let id = validate::peer(&peer)?;
            let address = if peer == id { "" } else { peer.as_str() };
            output.show(&client.peer_add(&id, address).await?)
        }
        Command::Peers(Peers::Rm { peer }) => Ok(client.peer_rm(&validate::peer(&peer)?).await?),
        Command::Peers(Peers::Drain(wanted)) => drain::drain(client, output, &wanted).await,
        Command::Peers(Peers::Rebalance(wanted)) => rebalance::rebalance(client, output, &wanted).await,
        Command::Add(arguments) => add::add(client, output, &arguments).await,
        Command::Pin(command) => pin::pin(client, output, command).await,
        Command::Status(arguments) => status(client, output, &arguments).await,
        Command::Sync(arguments) => sync(client, output, &arguments).await,
        Command::Recover(arguments) => recover(client, output, &arguments).await,
        Command::Health(command) => health(client, output, command).await,
        Command::Events(wanted) => events(client, output, wanted).await,
        Command::Auth(command) => auth::auth(client, output, command).await,
        Command::Ipfs(Ipfs::Gc { local }) => output.show(&client.repo_gc(local).await?),
        Command::Ipfs(Ipfs::Scrub(wanted)) => scrub(client, output, wanted).await,
        Command::Commands(_) => list_commands(output),
        Command::Completions { shell } => completions(shell),
        Command::Man { folder } => manual(&folder),
    }
}

/// Returns whether the command asks for a linearizable read.
fn wants_fresh(command: &Command) -> bool {
    if let Command::Pin(Pin::Ls(PinLs { read, .. })) | Command::Status(Status { read, .. }) = command {
        return read.consistent;
    }
    false
}

fn connect(global: &Global, consistent: bool) -> Result<Client, Failure> {
    let credentials = global
        .basic_auth
        .as_deref()
        .filter(|given| !given.is_empty())
        .map(|given| {
            let (user, password) = given.split_once(':').unwrap_or((given, ""));
            (user.to_owned(), password.to_owned())
        });
    validate::secret(global.secret.as_deref().unwrap_or_default())?;
    let token = global.auth_token.clone().filter(|given| !given.is_empty());
    let has_secret = credentials.is_some() || token.is_some();
    let https = global.https || (has_secret && !global.force_http);
    if https && !global.https && global.debug {
        print_stderr(format_args!(
            "credentials imply HTTPS; --force-http sends them over plain HTTP"
        ));
    }
    let observer = global.debug.then(|| -> cluster_api::client::Observer {
        Arc::new(|exchange| {
            print_stderr(format_args!(
                "{} {}: {}",
                exchange.method, exchange.url, exchange.outcome
            ));
        })
    });
    let timeout = (global.timeout > 0).then(|| Duration::from_secs(global.timeout));
    Ok(Client::new(
        &global.host,
        Options {
            timeout,
            credentials,
            token,
            https,
            no_check_certificate: global.no_check_certificate,
            consistent,
            warned: Some(Arc::new(|warning| {
                print_stderr(format_args!("warning: {warning}"));
            })),
            observer,
        },
    )?)
}

/// Shows the scrubs, after the changes that are wanted.
async fn scrub(client: &Client, output: &mut Output, wanted: Scrub) -> Result<(), Failure> {
    let mut query = Query::default();
    if wanted.local {
        query.set("local", true);
    }
    if !wanted.peer.is_empty() {
        let peers: Vec<String> = wanted
            .peer
            .iter()
            .map(|peer| validate::peer(peer))
            .collect::<Result<_, _>>()?;
        query.set("peer", peers.join(","));
    }
    let actions = [
        ("start", wanted.now),
        ("pause", wanted.pause),
        ("resume", wanted.resume),
    ];
    let action = actions.iter().find(|(_, is_wanted)| *is_wanted);
    if let Some((action, _)) = action {
        query.set("action", *action);
    }
    let changes = action.is_some() || wanted.fraction.is_some();
    if let Some(fraction) = wanted.fraction {
        query.set("fraction", fraction);
    }
    let answer = if changes {
        client.change_scrubs(&query).await?
    } else {
        client.scrubs(&query).await?
    };
    output.show(&answer)
}

/// Prints events as they arrive. The end of the stream is an error, because later events are missed.
async fn events(client: &Client, output: &mut Output, wanted: Events) -> Result<(), Failure> {
    let mut query = Query::default();
    query.set("type", wanted.kinds.unwrap_or_default());
    if let Some(cid) = wanted.cid {
        query.set("cid", validate::cid(&cid)?);
    }
    if let Some(peer) = wanted.peer {
        query.set("peer", validate::peer(&peer)?);
    }
    if wanted.local {
        query.set("local", true);
    }
    if let Some(after) = wanted.after {
        query.set("after", after);
    }
    let mut events = client.events(&query).await?;
    let mut reason = "the connection ended".to_owned();
    while let Some(event) = events.next().await? {
        output.show(&event)?;
        output.flush()?;
        if ["closed", "lost"].contains(&event.value.kind.as_str()) {
            reason = event.value.error;
        }
    }
    Err(Failure::local("following the events", reason))
}

async fn status(client: &Client, output: &mut Output, arguments: &Status) -> Result<(), Failure> {
    if arguments.under_replicated {
        return output.show_all(client.under_replicated().await?).await;
    }
    let cids = arguments
        .cids
        .iter()
        .map(|cid| validate::cid(cid))
        .collect::<Result<Vec<_>, _>>()?;
    if let [cid] = cids.as_slice() {
        return output.show(&client.status(cid, arguments.local).await?);
    }
    let filter = arguments.filter.as_deref().unwrap_or_default();
    let filter = StatusFilter::parse(filter).ok_or_else(|| {
        let known = StatusFilter::names().join(", ");
        Failure::local(
            "parsing filter flag",
            format!("invalid filter name {filter:?}: use some of {known}"),
        )
    })?;
    // The Go peer refuses a filter together with CIDs.
    let filter = if cids.is_empty() {
        filter
    } else {
        StatusFilter::ALL
    };
    output
        .show_all(client.status_all(&cids, filter, arguments.local).await?)
        .await
}

async fn recover(client: &Client, output: &mut Output, arguments: &OneOrAll) -> Result<(), Failure> {
    match arguments.cid() {
        Some(cid) => output.show(&client.recover(&validate::cid(cid)?, arguments.local).await?),
        None => output.show_all(client.recover_all(arguments.local).await?).await,
    }
}

/// Runs `sync`, or `recover` at Go peers since v1: those have no `sync`, as their tracker compares
/// automatically.
async fn sync(client: &Client, output: &mut Output, arguments: &OneOrAll) -> Result<(), Failure> {
    match arguments.cid() {
        Some(cid) => match client.sync(&validate::cid(cid)?, arguments.local).await {
            Err(error) if is_unknown_route(&error) => recover(client, output, arguments).await,
            answer => output.show(&answer?),
        },
        None => match client.sync_all(arguments.local).await {
            Err(error) if is_unknown_route(&error) => recover(client, output, arguments).await,
            lines => output.show_all(lines?).await,
        },
    }
}

/// Returns whether the service lacks the route. It may have parsed the word `sync` as an invalid CID.
fn is_unknown_route(error: &ClientError) -> bool {
    matches!(error, ClientError::Api(answer)
        if answer.code == 405
            || (answer.code == 404 && answer.message == "not found")
            || (answer.code == 400 && answer.message.to_lowercase().contains("cid")))
}

async fn health(client: &Client, output: &mut Output, command: Health) -> Result<(), Failure> {
    match command {
        Health::Graph {
            file, all_ipfs_peers, ..
        } => draw(client, output, file, all_ipfs_peers).await,
        Health::Metrics { name: Some(name), .. } if !name.is_empty() => {
            output.show(&client.metrics(&name).await?)
        }
        Health::Metrics { .. } => output.show(&client.metric_names().await?),
        Health::Summary(_) => output.show(&client.health_summary().await?),
        Health::Alerts(_) => output.show(&client.alerts().await?),
        Health::Bandwidth(_) => output.show(&client.bandwidth().await?),
    }
}

async fn draw(client: &Client, output: &mut Output, file: Option<PathBuf>, all: bool) -> Result<(), Failure> {
    let answer = client.graph().await?;
    // In every encoding, as in the Go tool: "health graph" writes a Graphviz file.
    let drawn = graph::dot(&answer.value, all);
    match file.filter(|path| !path.as_os_str().is_empty()) {
        None => output.raw(&drawn),
        Some(path) => std::fs::write(&path, drawn)
            .map_err(|error| Failure::local("creating output file", format!("{}: {error}", path.display()))),
    }
}

fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "ipfs-cluster-ctl", &mut script);
    Ok(std::io::Write::write_all(&mut std::io::stdout(), &script)?)
}

fn manual(folder: &Path) -> Result<(), Failure> {
    clap_mangen::generate_to(Cli::command(), folder)
        .map_err(|error| Failure::local("writing the manual", format!("{}: {error}", folder.display())))
}

fn help() -> Result<(), Failure> {
    Ok(Cli::command().print_long_help()?)
}

/// Prints the full name of every command.
fn list_commands(output: &mut Output) -> Result<(), Failure> {
    fn walk(command: &clap::Command, parent: &str, lines: &mut String) {
        for child in command.get_subcommands() {
            let name = format!("{parent} {}", child.get_name());
            lines.push_str(&name);
            lines.push('\n');
            walk(child, &name, lines);
        }
    }
    let mut lines = String::new();
    walk(&Cli::command(), "ipfs-cluster-ctl", &mut lines);
    output.raw(&(lines + "ipfs-cluster-ctl help\n"))
}
