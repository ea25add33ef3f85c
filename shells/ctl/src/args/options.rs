//! What several commands that pin have in common.

use crate::failure::Failure;
use crate::validate;
use clap::Args;
use cluster_api::{GoDuration, PinOptions};
use std::str::FromStr;

/// A duration, as in `90s` or `5m`; an empty one is none, as a script with an unset variable gives it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OptionalDuration(pub(crate) Option<GoDuration>);

impl FromStr for OptionalDuration {
    type Err = <GoDuration as FromStr>::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let duration = (!text.is_empty()).then(|| text.parse()).transpose()?;
        Ok(Self(duration))
    }
}

/// What a pin is called, and how long it stays: also for one that takes everything else from another.
#[derive(Debug, Args)]
pub(crate) struct Label {
    /// A name for the pin
    #[arg(
        long,
        short = 'n',
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    pub(crate) name: String,
    /// Unpin by itself after so long, as in 24h
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    pub(crate) expire_in: OptionalDuration,
}

impl Label {
    /// As options of a pin.
    pub(crate) fn options(&self) -> Result<PinOptions, Failure> {
        Ok(PinOptions {
            name: self.name.clone(),
            expire_at: validate::expiry(self.expire_in.0)?,
            ..PinOptions::default()
        })
    }
}

/// How a new pin is made.
#[derive(Debug, Args)]
pub(crate) struct NewPin {
    #[command(flatten)]
    label: Label,
    /// At least so many copies; 0 for the cluster's default, -1 on every peer
    #[arg(
        long,
        visible_alias = "rmin",
        default_value_t = 0,
        allow_negative_numbers = true,
        value_name = "COPIES"
    )]
    replication_min: i32,
    /// At most so many copies; 0 for the cluster's default, -1 on every peer
    #[arg(
        long,
        visible_alias = "rmax",
        default_value_t = 0,
        allow_negative_numbers = true,
        value_name = "COPIES"
    )]
    replication_max: i32,
    /// Prefer these peers
    #[arg(long, visible_alias = "allocs", value_name = "PEER,PEER")]
    allocations: Option<String>,
    /// Something to remember with the pin; can be given several times
    #[arg(long, value_name = "KEY=VALUE", allow_hyphen_values = true)]
    metadata: Vec<String>,
}

impl NewPin {
    /// As options of a pin.
    pub(crate) fn options(&self) -> Result<PinOptions, Failure> {
        Ok(PinOptions {
            replication_factor_min: self.replication_min,
            replication_factor_max: self.replication_max,
            user_allocations: validate::peers(self.allocations.as_deref())?,
            metadata: validate::metadata(&self.metadata)?,
            ..self.label.options()?
        })
    }
}
