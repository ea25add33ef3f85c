//! Arguments shared by the commands that pin.

use crate::failure::Failure;
use crate::validate;
use clap::Args;
use cluster_api::{GoDuration, PinOptions};
use std::str::FromStr;

/// Optional duration, as in `90s` or `5m`; an empty text, as from a script's unset variable, means none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OptionalDuration(pub(crate) Option<GoDuration>);

impl FromStr for OptionalDuration {
    type Err = <GoDuration as FromStr>::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let duration = (!text.is_empty()).then(|| text.parse()).transpose()?;
        Ok(Self(duration))
    }
}

/// Name and expiry of a pin; all that `pin update` can change.
#[derive(Debug, Args)]
pub(crate) struct Label {
    /// Name of the pin
    #[arg(
        long,
        short = 'n',
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    pub(crate) name: String,
    /// Unpin automatically after this duration, as in 24h
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
    /// Converts to options of a pin.
    pub(crate) fn options(&self) -> Result<PinOptions, Failure> {
        Ok(PinOptions {
            name: self.name.clone(),
            expire_at: validate::expiry(self.expire_in.0)?,
            ..PinOptions::default()
        })
    }
}

/// Options of a new pin.
#[derive(Debug, Args)]
pub(crate) struct NewPin {
    #[command(flatten)]
    label: Label,
    /// Minimum number of copies; 0 for the cluster's default, -1 on every peer
    #[arg(
        long,
        visible_alias = "rmin",
        default_value_t = 0,
        allow_negative_numbers = true,
        value_name = "COPIES"
    )]
    replication_min: i32,
    /// Maximum number of copies; 0 for the cluster's default, -1 on every peer
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
    /// Metadata to store with the pin; can be given several times
    #[arg(long, value_name = "KEY=VALUE", allow_hyphen_values = true)]
    metadata: Vec<String>,
}

impl NewPin {
    /// Converts to options of a pin.
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
