//! Environment variables of the configuration.

use std::path::Path;

use super::{ConfigError, Environment, files};

/// Suffix of a variable that names a file with the value, as credentials of systemd and secrets of container
/// runtimes are passed.
const FILE_SUFFIX: &str = "_FILE";

/// Returns the environment variables of this process that concern the configuration. The value of
/// `CLUSTER_X_FILE` is the path of a file with the value of `CLUSTER_X`, unless that is set too.
///
/// # Errors
/// Such a file cannot be read.
pub fn environment() -> Result<Environment, ConfigError> {
    let named = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        let name = name.into_string().ok()?;
        let value = value.to_string_lossy().into_owned();
        name.starts_with("CLUSTER_").then_some((name, value))
    };
    with_files(std::env::vars_os().filter_map(named).collect())
}

fn with_files(mut environment: Environment) -> Result<Environment, ConfigError> {
    let is_set = |value: &String| !value.trim().is_empty();
    let files: Vec<_> = environment
        .extract_if(.., |name, _| name.ends_with(FILE_SUFFIX))
        .collect();
    for (variable, path) in files {
        let name = variable.trim_end_matches(FILE_SUFFIX);
        if !is_set(&path) || environment.get(name).is_some_and(is_set) {
            continue;
        }
        let text = files::read_small(Path::new(path.trim())).map_err(|error| ConfigError::Variable {
            name: variable.clone(),
            problem: if let ConfigError::Missing(path) = error {
                format!("{} does not exist", path.display())
            } else {
                error.to_string()
            },
        })?;
        environment.insert(name.to_owned(), text.trim().to_owned());
    }
    Ok(environment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_of_a_variable_may_be_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "abc\n").unwrap();
        let path = path.display().to_string();
        let set = |pairs: &[(&str, &str)]| {
            let pairs = pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            with_files(pairs.collect())
        };
        let read = set(&[("CLUSTER_SECRET_FILE", &path)]).unwrap();
        assert_eq!(read["CLUSTER_SECRET"], "abc");
        let both = set(&[("CLUSTER_SECRET_FILE", &path), ("CLUSTER_SECRET", "set")]).unwrap();
        assert_eq!(both["CLUSTER_SECRET"], "set");
        assert!(set(&[("CLUSTER_SECRET_FILE", "")]).is_ok());
        let error = set(&[("CLUSTER_SECRET_FILE", "/nowhere/secret")])
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "environment variable CLUSTER_SECRET_FILE: /nowhere/secret does not exist"
        );
    }
}
