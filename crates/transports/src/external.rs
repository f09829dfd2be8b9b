//! Connection strings of transports that this project does not implement: a configured template.

use std::{fmt, str::FromStr};

use protocol::{Address, ConnectionString, IslandId, KNOWN_PROTOCOLS, is_protocol_name};

/// A connection string with the placeholders `{island}` and `{address}` in its parameters, such as
/// `pulse:wss://host/{island}?as={address}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    protocol: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Island,
    Address,
}

/// Why a text is not a [`Template`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// There is no `:`, or no text before or after it.
    #[error("must be a protocol, a colon and parameters")]
    NoProtocol,
    /// The text before the `:` is not a protocol name.
    #[error("{0:?} is no name of a protocol: a letter, then up to 31 letters, digits and '-', in lower case")]
    MalformedProtocol(String),
    /// The protocol is one of the built-in ones.
    #[error("the protocol {0} is built in")]
    BuiltIn(String),
    /// The placeholder is unknown.
    #[error("{{{0}}} is no placeholder: there are {{island}} and {{address}}")]
    UnknownPlaceholder(String),
    /// A brace without its counterpart.
    #[error("a brace is opened and not closed, or closed and not opened")]
    UnbalancedBrace,
    /// URLs contain neither white space nor control characters.
    #[error("must not contain white space or control characters")]
    WhitespaceOrControl,
}

impl Template {
    /// The protocol that clients must support.
    pub fn protocol(&self) -> &str {
        &self.protocol
    }

    /// The connection string for `address` to `island`.
    pub fn connection(&self, island: &IslandId, address: Address) -> ConnectionString {
        let parts = self.parts.iter().map(|part| match part {
            Part::Text(text) => text.clone(),
            Part::Island => island.to_string(),
            Part::Address => address.to_string(),
        });
        ConnectionString::External { protocol: self.protocol.clone(), parameters: parts.collect() }
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.protocol)?;
        self.parts.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(text),
            Part::Island => f.write_str("{island}"),
            Part::Address => f.write_str("{address}"),
        })
    }
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let (protocol, parameters) = text.split_once(':').ok_or(TemplateError::NoProtocol)?;
        if protocol.is_empty() || parameters.is_empty() {
            return Err(TemplateError::NoProtocol);
        }
        if !is_protocol_name(protocol) {
            return Err(TemplateError::MalformedProtocol(protocol.to_owned()));
        }
        if KNOWN_PROTOCOLS.contains(&protocol) {
            return Err(TemplateError::BuiltIn(protocol.to_owned()));
        }
        if parameters.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(TemplateError::WhitespaceOrControl);
        }
        Ok(Self { protocol: protocol.to_owned(), parts: parse_parts(parameters)? })
    }
}

fn parse_parts(parameters: &str) -> Result<Vec<Part>, TemplateError> {
    let mut parts = Vec::new();
    let mut rest = parameters;
    while let Some(brace) = rest.find(['{', '}']) {
        let (text, from_brace) = rest.split_at(brace);
        let inside = from_brace.strip_prefix('{').ok_or(TemplateError::UnbalancedBrace)?;
        let (name, after) = inside.split_once('}').ok_or(TemplateError::UnbalancedBrace)?;
        parts.push(Part::Text(text.to_owned()));
        parts.push(match name {
            "island" => Part::Island,
            "address" => Part::Address,
            _ if name.contains('{') => return Err(TemplateError::UnbalancedBrace),
            _ => return Err(TemplateError::UnknownPlaceholder(name.to_owned())),
        });
        rest = after;
    }
    parts.push(Part::Text(rest.to_owned()));
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(template: &str) -> String {
        let text = template;
        let template: Template = text.parse().unwrap();
        assert_eq!(template.to_string(), text, "it is printed as it was parsed");
        template.connection(&"I1".parse().unwrap(), Address::new([0xab; 20])).to_string()
    }

    #[test]
    fn placeholders_are_filled_and_text_is_kept() {
        let address = Address::new([0xab; 20]);
        assert_eq!(
            filled("pulse:wss://host/{island}?as={address}"),
            format!("pulse:wss://host/I1?as={address}")
        );
        assert_eq!(filled("pulse:{island}{island}"), "pulse:I1I1");
        assert_eq!(filled("one-room:wss://host"), "one-room:wss://host");
        let read: ConnectionString = filled("pulse:wss://host/{island}").parse().unwrap();
        assert!(matches!(read, ConnectionString::External { protocol, .. } if protocol == "pulse"));
    }

    #[test]
    fn each_template_error_is_named() {
        use TemplateError::*;
        for (template, error) in [
            ("", NoProtocol),
            ("wss", NoProtocol),
            (":wss://host", NoProtocol),
            ("pulse:", NoProtocol),
            ("{island}:x", MalformedProtocol("{island}".into())),
            ("Pulse:x", MalformedProtocol("Pulse".into())),
            ("livekit:wss://host/{island}", BuiltIn("livekit".into())),
            ("offline:x", BuiltIn("offline".into())),
            ("pulse:{room}", UnknownPlaceholder("room".into())),
            ("pulse:{}", UnknownPlaceholder(String::new())),
            ("pulse:{Island}", UnknownPlaceholder("Island".into())),
            ("pulse:{island", UnbalancedBrace),
            ("pulse:island}", UnbalancedBrace),
            ("pulse:{{island}}", UnbalancedBrace),
            ("pulse:wss://host/ {island}", WhitespaceOrControl),
        ] {
            assert_eq!(template.parse::<Template>(), Err(error), "{template:?}");
        }
        assert_eq!(
            UnknownPlaceholder("room".into()).to_string(),
            "{room} is no placeholder: there are {island} and {address}"
        );
    }
}
