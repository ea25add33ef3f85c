//! Checks of values against JSON schemas, as far as the OpenAPI document uses their language. An unknown
//! keyword fails the check, so that none is overlooked.

use serde_json::{Map, Value};

/// Keywords without an effect on validity.
const NOTES: [&str; 5] = ["default", "description", "format", "title", "contentMediaType"];

/// The schemas of a document.
pub(super) struct Schemas<'a> {
    pub(super) document: &'a Value,
}

impl Schemas<'_> {
    /// Checks a value.
    ///
    /// # Errors
    /// It does not have the schema; the text says where.
    pub(super) fn check(&self, schema: &Value, value: &Value) -> Result<(), String> {
        let Some(keywords) = schema.as_object() else {
            let is_any = *schema == Value::Bool(true);
            return is_any
                .then_some(())
                .ok_or_else(|| format!("{schema} admits nothing"));
        };
        for (keyword, operand) in keywords {
            self.keyword(keywords, keyword, operand, value)?;
        }
        Ok(())
    }

    fn keyword(
        &self,
        schema: &Map<String, Value>,
        keyword: &str,
        operand: &Value,
        value: &Value,
    ) -> Result<(), String> {
        let fails = |why: &str| Err(format!("{value} {why} {operand}"));
        match keyword {
            "$ref" => {
                let pointer = operand.as_str().and_then(|target| target.strip_prefix('#'));
                let target = pointer.and_then(|pointer| self.document.pointer(pointer));
                self.check(target.ok_or("a reference leads nowhere")?, value)
            }
            "type" => {
                let is = |name: &Value| is_of(value, name.as_str().unwrap_or_default());
                let fits = operand
                    .as_array()
                    .map_or_else(|| is(operand), |names| names.iter().any(is));
                if fits { Ok(()) } else { fails("is no") }
            }
            "enum" => match operand.as_array().is_some_and(|all| all.contains(value)) {
                true => Ok(()),
                false => fails("is none of"),
            },
            "anyOf" | "oneOf" => {
                let mut schemas = operand.as_array().into_iter().flatten();
                match schemas.any(|schema| self.check(schema, value).is_ok()) {
                    true => Ok(()),
                    false => fails("has none of the schemas"),
                }
            }
            "allOf" => {
                let mut schemas = operand.as_array().into_iter().flatten();
                schemas.try_for_each(|schema| self.check(schema, value))
            }
            "minimum" => match value.as_f64().zip(operand.as_f64()) {
                Some((number, least)) if number < least => fails("is below"),
                _ => Ok(()),
            },
            "maximum" => match value.as_f64().zip(operand.as_f64()) {
                Some((number, most)) if number > most => fails("is above"),
                _ => Ok(()),
            },
            "items" => {
                let mut items = value.as_array().into_iter().flatten();
                items.try_for_each(|item| self.check(operand, item))
            }
            "required" => {
                let mut names = operand.as_array().into_iter().flatten().filter_map(Value::as_str);
                match value.is_object() && names.any(|name| value.get(name).is_none()) {
                    true => fails("lacks some of"),
                    false => Ok(()),
                }
            }
            "properties" => self.properties(operand, value),
            "additionalProperties" => {
                let known = schema.get("properties").and_then(Value::as_object);
                let fields = value.as_object().into_iter().flatten();
                let mut others =
                    fields.filter(|(name, _)| !known.is_some_and(|known| known.contains_key(*name)));
                others.try_for_each(|(_, value)| self.check(operand, value))
            }
            _ if NOTES.contains(&keyword) => Ok(()),
            _ => Err(format!("the keyword {keyword:?} is not known to this test")),
        }
    }

    /// Checks the fields of an object, all of which must be described.
    fn properties(&self, described: &Value, value: &Value) -> Result<(), String> {
        for (name, field) in value.as_object().into_iter().flatten() {
            let schema = described.get(name);
            let schema = schema.ok_or_else(|| format!("the field {name:?} is not described"))?;
            self.check(schema, field)
                .map_err(|why| format!("{name}: {why}"))?;
        }
        Ok(())
    }
}

fn is_of(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}
