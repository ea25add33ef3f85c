//! Pins in lines of text: CIDs, CSV, the output of `ipfs pin ls`, and pins as JSON.

use super::service::PinStatus;
use cluster_api::{Pin, PinMode, PinOptions, PinType};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Fields with CIDs, which exports of Go versions before 1.0 write as `{"/": "<CID>"}`.
const LINKED: [&str; 3] = ["cid", "reference", "pin_update"];

/// Parser of lines, which remembers the columns that a first line names.
#[derive(Debug, Default)]
pub(super) struct LineParser {
    columns: Vec<String>,
    has_begun: bool,
}

impl LineParser {
    /// Returns the pins of a line: none of an empty line, a comment or a header. The error has the reason.
    pub(super) fn parse(&mut self, line: &str) -> Result<Vec<Pin>, String> {
        if line.is_empty() || line.starts_with('#') {
            return Ok(Vec::new());
        }
        let is_first = !std::mem::replace(&mut self.has_begun, true);
        if line.starts_with('{') {
            return json(line);
        }
        let fields = csv(line)?;
        if is_first && fields.iter().any(|field| field.eq_ignore_ascii_case("cid")) {
            self.columns = fields;
            return Ok(Vec::new());
        }
        if !self.columns.is_empty() {
            return self.row(fields).map(|pin| vec![pin]);
        }
        match fields.as_slice() {
            [alone] => listed(alone),
            [cid, name] => Ok(vec![pin(cid, name, PinMode::Recursive)?]),
            [..] => Err(format!(
                "{} columns: name them in the first line, as in cid,name,owner",
                fields.len()
            )),
        }
    }

    /// Returns the pin of a row under named columns.
    fn row(&self, fields: Vec<String>) -> Result<Pin, String> {
        if fields.len() > self.columns.len() {
            let (found, named) = (fields.len(), self.columns.len());
            return Err(format!("{found} columns, but the first line names {named}"));
        }
        let (mut cid, mut name, mut metadata) = (String::new(), String::new(), BTreeMap::new());
        for (column, field) in self.columns.iter().zip(fields) {
            match column.to_ascii_lowercase().as_str() {
                "cid" => cid = field,
                "name" => name = field,
                _ if field.is_empty() => {}
                _ => drop(metadata.insert(column.clone(), field)),
            }
        }
        let mut pin = pin(&cid, &name, PinMode::Recursive)?;
        pin.options.metadata = metadata;
        Ok(pin)
    }
}

/// Splits a line of CSV.
fn csv(line: &str) -> Result<Vec<String>, String> {
    // A reader costs more than all else of a line.
    if !line.contains([',', '"']) {
        return Ok(vec![line.to_owned()]);
    }
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .trim(csv::Trim::All)
        .from_reader(line.as_bytes());
    let mut record = csv::StringRecord::new();
    reader
        .read_record(&mut record)
        .map_err(|error| error.to_string())?;
    Ok(record.iter().map(str::to_owned).collect())
}

/// Parses `CID`, or a line of `ipfs pin ls`: `CID TYPE [NAME]`.
fn listed(text: &str) -> Result<Vec<Pin>, String> {
    let (cid, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let rest = rest.trim_start();
    let (kind, name) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    kubo(cid, kind, name.trim())
}

/// Returns the pin of an IPFS node. Indirect pins are skipped.
fn kubo(cid: &str, kind: &str, name: &str) -> Result<Vec<Pin>, String> {
    match kind {
        "" | "recursive" => Ok(vec![pin(cid, name, PinMode::Recursive)?]),
        "direct" => Ok(vec![pin(cid, name, PinMode::Direct)?]),
        kind if kind.starts_with("indirect") => Ok(Vec::new()),
        other => Err(format!("{other:?} is no type of pins: write CID,NAME for a name")),
    }
}

fn pin(cid: &str, name: &str, mode: PinMode) -> Result<Pin, String> {
    Ok(Pin {
        options: PinOptions {
            name: name.to_owned(),
            mode,
            ..PinOptions::default()
        },
        cid: canonical(cid)?,
        pin_type: PinType::Data,
        max_depth: mode.max_depth(),
        ..Pin::default()
    })
}

fn canonical(cid: &str) -> Result<String, String> {
    let bare = cid.strip_prefix("/ipfs/").unwrap_or(cid);
    let parsed = cid::Cid::try_from(bare).map_err(|error| format!("invalid cid {cid:?}: {error}"))?;
    Ok(parsed.to_string())
}

/// A line of `ipfs pin ls --stream --encoding=json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    cid: String,
    #[serde(default)]
    r#type: String,
    #[serde(default)]
    name: String,
}

/// An entry of `ipfs pin ls --encoding=json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Key {
    r#type: String,
    #[serde(default)]
    name: String,
}

/// Parses a pin of a cluster, a pinning service or an IPFS node.
fn json(line: &str) -> Result<Vec<Pin>, String> {
    let invalid = |error: serde_json::Error| error.to_string();
    let mut value: Value = serde_json::from_str(line).map_err(invalid)?;
    if value.get("Keys").is_some() {
        let keys: BTreeMap<String, Key> = serde_json::from_value(value["Keys"].take()).map_err(invalid)?;
        let pins = keys.iter().map(|(cid, key)| kubo(cid, &key.r#type, &key.name));
        return Ok(pins.collect::<Result<Vec<_>, _>>()?.concat());
    }
    if value.get("Cid").is_some() {
        let listed: Listed = serde_json::from_value(value).map_err(invalid)?;
        return kubo(&listed.cid, &listed.r#type, &listed.name);
    }
    if value.get("pin").is_some() {
        let status: PinStatus = serde_json::from_value(value).map_err(invalid)?;
        let mut pin = status.into_pin();
        pin.cid = canonical(&pin.cid)?;
        return Ok(vec![pin]);
    }
    for field in LINKED {
        if let Some(link) = value.get(field).and_then(|link| link.get("/")).cloned() {
            value[field] = link;
        }
    }
    let mut pin: Pin = serde_json::from_value(value).map_err(invalid)?;
    pin.cid = canonical(&pin.cid)?;
    Ok(vec![pin])
}

#[cfg(test)]
mod tests {
    use super::*;

    const CID: &str = "QmP63DkAFEnDYNjDYBpyNDfttu1fvUw99x1brscPzpqmmq";

    fn parse(lines: &[&str]) -> Result<Vec<Pin>, String> {
        let mut parser = LineParser::default();
        let pins = lines.iter().map(|line| parser.parse(line));
        Ok(pins.collect::<Result<Vec<_>, _>>()?.concat())
    }

    fn names(lines: &[&str]) -> Vec<String> {
        let pins = parse(lines).unwrap();
        assert!(pins.iter().all(|pin| pin.cid == CID));
        pins.into_iter().map(|pin| pin.options.name).collect()
    }

    #[test]
    fn lines_of_all_kinds_are_read() {
        let quoted = format!("{CID},\"a, \"\"b\"\"\"");
        assert_eq!(names(&["# a comment", "", CID]), [""]);
        assert_eq!(names(&[&format!("/ipfs/{CID}")]), [""]);
        assert_eq!(names(&[&format!("{CID},docs")]), ["docs"]);
        assert_eq!(names(&[&quoted]), ["a, \"b\""]);
        assert_eq!(names(&[&format!("{CID} recursive my name")]), ["my name"]);
        assert_eq!(names(&[&format!("{CID} indirect through {CID}")]), [""; 0]);
        let stream = format!(r#"{{"Cid":"{CID}","Type":"recursive","Name":"n"}}"#);
        assert_eq!(names(&[&stream]), ["n"]);
        let keys = format!(r#"{{"Keys":{{"{CID}":{{"Type":"recursive"}}}}}}"#);
        assert_eq!(names(&[&keys]), [""]);
        let old = format!(r#"{{"cid":{{"/":"{CID}"}},"name":"o","allocations":null}}"#);
        assert_eq!(names(&[&old]), ["o"]);
        let status = format!(r#"{{"requestid":"1","pin":{{"cid":"{CID}","name":"p","meta":{{"k":"v"}}}}}}"#);
        assert_eq!(names(&[&status]), ["p"]);
    }

    #[test]
    fn named_columns_become_metadata() {
        let rows = ["owner,CID,name", &format!("me,{CID},docs"), &format!(",{CID}")];
        let pins = parse(&rows).unwrap();
        let owner = |pin: &Pin| pin.options.metadata.get("owner").cloned();
        assert_eq!(
            pins.iter().map(owner).collect::<Vec<_>>(),
            [Some("me".to_owned()), None]
        );
        assert_eq!(pins[0].options.name, "docs");
    }

    #[test]
    fn direct_pins_stay_direct() {
        let pins = parse(&[&format!("{CID} direct")]).unwrap();
        assert_eq!((pins[0].options.mode, pins[0].max_depth), (PinMode::Direct, 0));
    }

    #[test]
    fn other_lines_are_refused_with_the_reason() {
        let refused = |line: &str| parse(&[line]).unwrap_err();
        assert!(refused("nonsense").contains("invalid cid \"nonsense\""));
        assert!(refused(&format!("{CID} whatever")).contains("no type of pins"));
        assert!(refused(&format!("{CID},a,b")).contains("3 columns"));
        assert!(refused("{\"cid\":").contains("EOF"));
        assert!(refused("{\"name\":\"x\"}").contains("invalid cid"));
    }
}
