//! Settings of tracing: the standard `OTEL_*` variables, and `observations.tracing` of the Go peer
//! translated.
//!
//! Variables take precedence over the configuration. What the SDK and the exporter read from the environment
//! themselves (headers, resource attributes, limits of a span) is not repeated here; a sampler is only
//! checked, because the SDK silently replaces an unknown one.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use libp2p::multiaddr::Protocol;
use url::Url;

use crate::config::{Address, Tracing};

/// Path of an OTLP collector that takes spans.
const TRACES_PATH: &str = "/v1/traces";

/// Endpoint of a collector on this machine.
const DEFAULT_ENDPOINT: &str = "http://localhost:4318/v1/traces";

/// Port of OTLP over HTTP, at collectors and at Jaeger.
const OTLP_PORT: u16 = 4318;

/// Maximum number of spans queued for the exporter; some 500 bytes each.
const QUEUE_MAX: u64 = 1 << 16;

/// Maximum of any time limit.
const TIME_MAX: Duration = Duration::from_secs(3600);

/// Samplers of the specification that the SDK has.
const SAMPLERS: [&str; 6] = [
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
];

/// Destination of the spans, and the limits of their export.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Settings {
    /// URL that the spans are posted to: http or https.
    pub(super) endpoint: Url,
    /// Share of traces to sample that begin here; `None` if the environment says, or for all.
    pub(super) sampled_share: Option<f64>,
    /// Name of the service, unless the environment says.
    pub(super) service_name: String,
    /// Maximum number of spans queued for the exporter.
    pub(super) queue: usize,
    /// Maximum number of spans in one request to the collector.
    pub(super) batch: usize,
    /// Maximum time that a span waits for its batch.
    pub(super) delay: Duration,
    /// Time limit of one request to the collector.
    pub(super) timeout: Duration,
    /// Remarks for the operator.
    pub(super) notices: Vec<String>,
}

/// A variable or setting that cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SettingsError {
    /// The value is invalid.
    #[error("{name}: {value:?} is invalid: {expected}")]
    Invalid {
        /// Name of the variable.
        name: &'static str,
        /// Its value.
        value: String,
        /// Valid values.
        expected: String,
    },
}

/// Reader of environment variables; an empty one counts as absent.
struct Environment<'a>(&'a dyn Fn(&str) -> Option<String>);

impl Environment<'_> {
    fn get(&self, name: &str) -> Option<String> {
        (self.0)(name).filter(|value| !value.trim().is_empty())
    }

    /// Returns the first of these variables that is set, with its name.
    fn first(&self, names: &[&'static str]) -> Option<(&'static str, String)> {
        names.iter().find_map(|name| Some((*name, self.get(name)?)))
    }

    fn number(&self, names: &[&'static str], default: u64, max: u64) -> Result<u64, SettingsError> {
        let Some((name, value)) = self.first(names) else {
            return Ok(default);
        };
        match value.trim().parse() {
            Ok(number) if (1..=max).contains(&number) => Ok(number),
            Ok(_) | Err(_) => Err(SettingsError::Invalid {
                name,
                value,
                expected: format!("it must be a whole number from 1 to {max}"),
            }),
        }
    }

    fn millis(&self, names: &[&'static str], default: Duration) -> Result<Duration, SettingsError> {
        let in_millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let millis = self.number(names, in_millis(default), in_millis(TIME_MAX))?;
        Ok(Duration::from_millis(millis))
    }
}

impl Settings {
    /// Reads the settings; `None` while tracing is off, with remarks for the operator.
    ///
    /// # Errors
    /// A variable has an invalid value.
    pub(super) fn read(
        tracing: &Tracing,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(Option<Self>, Vec<String>), SettingsError> {
        let environment = Environment(environment);
        let mut notices = Vec::new();
        if !is_wanted(tracing, &environment, &mut notices) {
            return Ok((None, notices));
        }
        let protocol = environment.first(&[
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
            "OTEL_EXPORTER_OTLP_PROTOCOL",
        ]);
        if let Some((name, value)) = protocol
            && value != "http/protobuf"
        {
            notices.push(format!(
                "{name}: {value:?} is not supported: spans are sent as http/protobuf, which a collector \
                 takes at its port {OTLP_PORT}"
            ));
        }
        let endpoint = endpoint(tracing, &environment, &mut notices)?;
        let sampled_share = match check_sampler(&environment)? {
            true => None,
            false => tracing.enable_tracing.then_some(tracing.sampling_prob),
        };
        let queue = environment.number(&["OTEL_BSP_MAX_QUEUE_SIZE"], 2048, QUEUE_MAX)?;
        let batch = environment.number(&["OTEL_BSP_MAX_EXPORT_BATCH_SIZE"], 512, QUEUE_MAX)?;
        let delay = environment.millis(&["OTEL_BSP_SCHEDULE_DELAY"], Duration::from_secs(5))?;
        let whole = environment.millis(&["OTEL_BSP_EXPORT_TIMEOUT"], Duration::from_secs(30))?;
        let request = environment.millis(
            &["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"],
            Duration::from_secs(10),
        )?;
        let settings = Self {
            endpoint,
            sampled_share,
            service_name: tracing.service_name.clone(),
            queue: usize::try_from(queue).unwrap_or(usize::MAX),
            batch: usize::try_from(batch.min(queue)).unwrap_or(usize::MAX),
            delay,
            timeout: whole.min(request),
            notices,
        };
        Ok((Some(settings), Vec::new()))
    }
}

/// Returns whether tracing is switched on, by the configuration or by a variable.
fn is_wanted(tracing: &Tracing, environment: &Environment<'_>, notices: &mut Vec<String>) -> bool {
    let disabled = environment.get("OTEL_SDK_DISABLED");
    if disabled.is_some_and(|value| value.trim().eq_ignore_ascii_case("true")) {
        return false;
    }
    if let Some(exporters) = environment.get("OTEL_TRACES_EXPORTER") {
        let is_otlp = exporters.split(',').any(|name| name.trim() == "otlp");
        if !is_otlp && exporters.trim() != "none" {
            notices.push(format!(
                "OTEL_TRACES_EXPORTER: {exporters:?} is not supported, so no spans are exported: use \
                 \"otlp\" or \"none\""
            ));
        }
        return is_otlp;
    }
    let endpoint = [
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
    ];
    tracing.enable_tracing || environment.first(&endpoint).is_some()
}

fn endpoint(
    tracing: &Tracing,
    environment: &Environment<'_>,
    notices: &mut Vec<String>,
) -> Result<Url, SettingsError> {
    let parse = |name: &'static str, value: &str, path: &str| {
        let whole = format!(
            "{}{path}",
            if path.is_empty() {
                value
            } else {
                value.trim_end_matches('/')
            }
        );
        let parsed = Url::parse(&whole).ok().filter(|url| url.has_host());
        let parsed = parsed.filter(|url| ["http", "https"].contains(&url.scheme()));
        parsed.ok_or_else(|| SettingsError::Invalid {
            name,
            value: value.to_owned(),
            expected: "it must be a URL like http://localhost:4318".to_owned(),
        })
    };
    let name = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
    if let Some(value) = environment.get(name) {
        return parse(name, value.trim(), "");
    }
    let name = "OTEL_EXPORTER_OTLP_ENDPOINT";
    if let Some(value) = environment.get(name) {
        return parse(name, value.trim(), TRACES_PATH);
    }
    let name = "observations.tracing.jaeger_agent_endpoint";
    let Some(translated) = tracing
        .enable_tracing
        .then(|| translated(&tracing.jaeger_agent_endpoint))
        .flatten()
    else {
        if tracing.enable_tracing {
            notices.push(format!(
                "{name}: {} names no host: spans are sent to {DEFAULT_ENDPOINT}",
                tracing.jaeger_agent_endpoint.0
            ));
        }
        return parse(name, DEFAULT_ENDPOINT, "");
    };
    notices.push(format!(
        "{name}: {} is an agent of Jaeger, whose protocol collectors have dropped: spans are sent to the \
         OTLP port of that host, {translated}. Set OTEL_EXPORTER_OTLP_ENDPOINT for another",
        tracing.jaeger_agent_endpoint.0
    ));
    parse(name, &translated, "")
}

/// Returns the OTLP endpoint on the host of a Jaeger agent.
fn translated(agent: &Address) -> Option<String> {
    let host = match agent.0.iter().next() {
        Some(Protocol::Ip4(Ipv4Addr::UNSPECIFIED)) => Ipv4Addr::LOCALHOST.to_string(),
        Some(Protocol::Ip4(address)) => address.to_string(),
        Some(Protocol::Ip6(Ipv6Addr::UNSPECIFIED)) => format!("[{}]", Ipv6Addr::LOCALHOST),
        Some(Protocol::Ip6(address)) => format!("[{address}]"),
        Some(Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name)) => name.into_owned(),
        _ => return None,
    };
    Some(format!("http://{host}:{OTLP_PORT}{TRACES_PATH}"))
}

/// Returns whether the environment names a sampler, which the SDK reads.
fn check_sampler(environment: &Environment<'_>) -> Result<bool, SettingsError> {
    let name = "OTEL_TRACES_SAMPLER";
    let Some(sampler) = environment.get(name) else {
        return Ok(false);
    };
    if !SAMPLERS.contains(&sampler.as_str()) {
        return Err(SettingsError::Invalid {
            name,
            value: sampler,
            expected: format!("it must be one of {}", SAMPLERS.join(", ")),
        });
    }
    let name = "OTEL_TRACES_SAMPLER_ARG";
    let value = environment.get(name).unwrap_or_default();
    let share = value.parse::<f64>().ok();
    let is_share = share.is_some_and(|share| (0.0..=1.0).contains(&share));
    if sampler.ends_with("traceidratio") && !is_share {
        return Err(SettingsError::Invalid {
            name,
            value,
            expected: format!("{sampler} needs a share from 0 to 1"),
        });
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(
        tracing: &Tracing,
        variables: &[(&str, &str)],
    ) -> Result<(Option<Settings>, Vec<String>), SettingsError> {
        let get = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Settings::read(tracing, &get)
    }

    fn on(tracing: &Tracing, variables: &[(&str, &str)]) -> Settings {
        read(tracing, variables).unwrap().0.unwrap()
    }

    fn enabled() -> Tracing {
        Tracing {
            enable_tracing: true,
            ..Tracing::default()
        }
    }

    #[test]
    fn tracing_is_off_until_the_configuration_or_a_variable_asks_for_it() {
        let off = Tracing::default();
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4318/");
        assert_eq!(read(&off, &[]).unwrap(), (None, Vec::new()));
        let settings = on(&off, &[endpoint]);
        assert_eq!(settings.endpoint.as_str(), "https://collector:4318/v1/traces");
        assert_eq!(settings.sampled_share, None);
        let disabled = [endpoint, ("OTEL_SDK_DISABLED", "TRUE")];
        assert_eq!(read(&enabled(), &disabled).unwrap().0, None);
        let none = [endpoint, ("OTEL_TRACES_EXPORTER", "none")];
        assert_eq!(read(&enabled(), &none).unwrap(), (None, Vec::new()));
        let (settings, notices) = read(&enabled(), &[("OTEL_TRACES_EXPORTER", "zipkin")]).unwrap();
        assert_eq!(settings, None);
        assert!(notices[0].contains("\"zipkin\" is not supported"), "{notices:?}");
        let exporter = on(&off, &[("OTEL_TRACES_EXPORTER", "stdout,otlp")]);
        assert_eq!(exporter.endpoint.as_str(), DEFAULT_ENDPOINT);
    }

    #[test]
    fn jaeger_agent_is_translated_to_the_otlp_port_of_its_host() {
        for (agent, endpoint) in [
            ("/ip4/0.0.0.0/udp/6831", "http://127.0.0.1:4318/v1/traces"),
            ("/ip4/10.1.2.3/udp/6831", "http://10.1.2.3:4318/v1/traces"),
            ("/ip6/::/udp/6831", "http://[::1]:4318/v1/traces"),
            ("/dns4/jaeger/udp/6831", "http://jaeger:4318/v1/traces"),
        ] {
            let tracing = Tracing {
                jaeger_agent_endpoint: Address(agent.parse().unwrap()),
                ..enabled()
            };
            let settings = on(&tracing, &[]);
            assert_eq!(settings.endpoint.as_str(), endpoint);
            assert_eq!(settings.sampled_share, Some(0.3));
            assert!(settings.notices[0].contains(agent), "{:?}", settings.notices);
        }
        let variable = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://a:1/spans");
        let settings = on(&enabled(), &[variable]);
        assert_eq!(settings.endpoint.as_str(), "http://a:1/spans");
        assert!(settings.notices.is_empty());
    }

    #[test]
    fn invalid_variables_are_named_and_unsupported_protocols_are_remarked() {
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"),
            ("OTEL_TRACES_SAMPLER", "sometimes"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
            ("OTEL_BSP_SCHEDULE_DELAY", "5s"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "-1"),
        ] {
            let error = read(&enabled(), &[(name, value)]).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("{name}: {value:?} is invalid: ")),
                "{error}"
            );
        }
        let ratio = ("OTEL_TRACES_SAMPLER", "traceidratio");
        assert!(read(&enabled(), &[ratio, ("OTEL_TRACES_SAMPLER_ARG", "2")]).is_err());
        let settings = on(
            &enabled(),
            &[
                ratio,
                ("OTEL_TRACES_SAMPLER_ARG", "0.5"),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
                ("OTEL_BSP_MAX_QUEUE_SIZE", "10"),
                ("OTEL_BSP_SCHEDULE_DELAY", "200"),
            ],
        );
        assert_eq!(settings.sampled_share, None);
        assert_eq!((settings.queue, settings.batch), (10, 10));
        assert_eq!(settings.delay, Duration::from_millis(200));
        assert_eq!(settings.timeout, Duration::from_secs(10));
        assert!(settings.notices[0].starts_with("OTEL_EXPORTER_OTLP_PROTOCOL: \"grpc\" is not supported"));
    }
}
