//! Tolerant access to the fields of a protobuf message in JSON.

use serde_json::{Map, Value};

/// The fields of a JSON object. A field that is absent or null has its default value, as in protobuf's JSON
/// mapping. Names are given in camel case; the original snake case is accepted too.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    map: &'a Map<String, Value>,
    /// The path of the object with a final dot, for error messages; empty for the outermost.
    path: &'static str,
}

/// The greatest length of an identifier or a name, in bytes. LiveKit servers allow 256 characters.
const MAX_TEXT_BYTES: usize = 1_024;

impl<'a> Fields<'a> {
    /// The outermost object.
    pub(super) fn of(value: &'a Value) -> Result<Self, String> {
        let map = value.as_object().ok_or("the body is not a JSON object")?;
        Ok(Self { map, path: "" })
    }

    /// A message in a field. `path` is the name with a final dot.
    pub(super) fn message(self, name: &str, path: &'static str) -> Result<Option<Self>, String> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let map = value.as_object().ok_or_else(|| self.error(name, "an object"))?;
        Ok(Some(Self { map, path }))
    }

    /// A string, empty by default.
    pub(super) fn text(self, name: &str) -> Result<String, String> {
        let Some(value) = self.get(name) else { return Ok(String::new()) };
        let text = value.as_str().filter(|text| text.len() <= MAX_TEXT_BYTES);
        text.map(str::to_owned).ok_or_else(|| self.error(name, "a string of at most 1024 bytes"))
    }

    /// A boolean, false by default.
    pub(super) fn flag(self, name: &str) -> Result<bool, String> {
        let value = self.get(name).map(|value| value.as_bool().ok_or_else(|| self.error(name, "a boolean")));
        value.unwrap_or(Ok(false))
    }

    /// An integer, as a number or as a string; 0 by default, and 0 instead of a negative one.
    pub(super) fn integer(self, name: &str) -> Result<u64, String> {
        let Some(value) = self.get(name) else { return Ok(0) };
        let number = match value {
            Value::String(text) => text.parse().ok(),
            Value::Number(number) => number.as_i64(),
            _ => None,
        };
        let number = number.ok_or_else(|| self.error(name, "a 64-bit integer"))?;
        Ok(u64::try_from(number).unwrap_or(0))
    }

    /// An enum value, as a name or as a number. `None`: the value is unknown.
    pub(super) fn enumeration<T: Default + TryFrom<i32>>(
        self,
        name: &str,
        by_name: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, String> {
        let Some(value) = self.get(name) else { return Ok(Some(T::default())) };
        match value {
            Value::String(text) => Ok(by_name(text)),
            Value::Number(number) => Ok(number
                .as_i64()
                .and_then(|number| i32::try_from(number).ok())
                .and_then(|number| T::try_from(number).ok())),
            _ => Err(self.error(name, "a name or a number")),
        }
    }

    fn get(self, name: &str) -> Option<&'a Value> {
        let value = self.map.get(name).or_else(|| self.map.get(&snake_case(name)));
        value.filter(|value| !value.is_null())
    }

    fn error(self, name: &str, expected: &str) -> String {
        format!("{}{name} is not {expected}", self.path)
    }
}

fn snake_case(camel: &str) -> String {
    let mut snake = String::with_capacity(camel.len() + 4);
    for letter in camel.chars() {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}
