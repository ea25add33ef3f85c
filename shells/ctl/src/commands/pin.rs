//! Execution of the subcommands of `pin`.

use crate::args::{self, PinAdd, PinLs, PinUpdate, WaitArgs};
use crate::failure::Failure;
use crate::import;
use crate::output::Output;
use crate::validate;
use crate::wait::{self, Goal};
use cluster_api::client::Answer;
use cluster_api::{Client, Pin, PinMode, PinOptions, PinTypeFilter, Query, Time, TrackerStatus};

/// Runs a subcommand of `pin`.
pub(super) async fn pin(client: &Client, output: &mut Output, command: args::Pin) -> Result<(), Failure> {
    match command {
        args::Pin::Add(arguments) => {
            let options = options(&arguments)?;
            let pin = client.pin(validate::path(&arguments.path)?, &options).await?;
            finish(client, output, &pin, TrackerStatus::Pinned, &arguments.wait).await
        }
        args::Pin::Rm(arguments) => {
            let pin = client.unpin(validate::path(&arguments.path)?).await?;
            finish(client, output, &pin, TrackerStatus::Unpinned, &arguments.wait).await
        }
        args::Pin::Update(arguments) => update(client, output, &arguments).await,
        args::Pin::Import(arguments) => import::run(client, output, &arguments).await,
        args::Pin::Ls(arguments) => list(client, output, &arguments).await,
    }
}

fn options(arguments: &PinAdd) -> Result<PinOptions, Failure> {
    if !matches!(arguments.mode.as_str(), "" | "recursive" | "direct") {
        let error = format!("{:?} is neither \"recursive\" nor \"direct\"", arguments.mode);
        return Err(Failure::local("parsing mode", error));
    }
    let mut options = arguments.pin.options()?;
    options.mode = PinMode::from_name(&arguments.mode);
    if arguments.replication != 0 {
        options.replication_factor_min = arguments.replication;
        options.replication_factor_max = arguments.replication;
    }
    Ok(options)
}

async fn update(client: &Client, output: &mut Output, arguments: &PinUpdate) -> Result<(), Failure> {
    let options = PinOptions {
        pin_update: Some(validate::cid(&arguments.existing)?),
        ..arguments.label.options()?
    };
    let pin = client.pin(validate::path(&arguments.path)?, &options).await?;
    finish(client, output, &pin, TrackerStatus::Pinned, &arguments.wait).await
}

async fn list(client: &Client, output: &mut Output, arguments: &PinLs) -> Result<(), Failure> {
    if let Some(cid) = &arguments.cid {
        return output.show(&client.allocation(&validate::cid(cid)?).await?);
    }
    // The Go tool treats a filter of unknown names as "all". After a typing error, a script that removes all
    // listed pins would remove the whole pinset.
    let filter = PinTypeFilter::parse(&arguments.filter).ok_or_else(|| {
        let error = format!(
            "invalid filter {:?}: use all or some of pin, meta-pin, clusterdag-pin, shard-pin",
            arguments.filter
        );
        Failure::local("parsing filter flag", error)
    })?;
    let mut conditions = conditions(arguments)?;
    let mut left = arguments.limit;
    loop {
        if let Some(left) = left {
            conditions.set("limit", left);
        }
        // A page may have fewer pins than asked for, although there are more.
        let lines = client.matching_allocations(filter, conditions.clone()).await?;
        let next = lines.next_cursor();
        let shown = output.show_page(lines).await?;
        left = left.map(|left| left.saturating_sub(shown));
        match next {
            Some(next) if left != Some(0) => conditions.set("cursor", next),
            _ => return Ok(()),
        }
    }
}

/// Returns the conditions on listed pins as parameters.
fn conditions(arguments: &PinLs) -> Result<Query, Failure> {
    let mut query = Query::default();
    for (name, text) in [
        ("name", &arguments.name),
        ("name-match", &arguments.name_match),
        ("sort", &arguments.sort),
        ("peer", &arguments.peer),
    ] {
        if let Some(text) = text {
            query.set(name, text);
        }
    }
    if arguments.under_replicated {
        query.set("under-replicated", true);
    }
    for (key, value) in validate::metadata(&arguments.meta)? {
        query.set(format!("meta-{key}"), value);
    }
    if let Some(since) = arguments.since {
        query.set("after", Time::now().plus_nanos(since.as_nanos().saturating_neg()));
    }
    Ok(query)
}

/// Waits with `--wait`, and prints the pin or its status.
async fn finish(
    client: &Client,
    output: &mut Output,
    pin: &Answer<Pin>,
    target: TrackerStatus,
    arguments: &WaitArgs,
) -> Result<(), Failure> {
    let mut status = None;
    let cid = &pin.value.cid;
    if arguments.wait {
        let minimum = match target == TrackerStatus::Pinned {
            true => i64::from(pin.value.options.replication_factor_min),
            false => 0,
        };
        let limit = arguments.wait_limit.unwrap_or(minimum);
        let goal = Goal {
            cid: cid.clone(),
            target,
            limit,
            timeout: arguments.wait_timeout.0,
        };
        status = Some(wait::wait_for(client, &goal).await?);
    }
    if arguments.no_status {
        return output.show(pin);
    }
    match status {
        Some(status) => output.show(&status),
        None => output.show(&wait::settled(client, cid, target).await?),
    }
}
