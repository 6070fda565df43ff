//! Refer-To with its headers, and Replaces (RFC 3515 §2.1, RFC 3891 §6.1).

use crate::name_addr::NameAddr;
use crate::param::{self, Params};
use crate::uri;

/// The dialog that an INVITE takes the place of, as the one who receives it sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replaces {
    pub call_id: String,
    /// Tag of the receiver of the INVITE.
    pub to_tag: String,
    /// Tag of the receiver's peer.
    pub from_tag: String,
    /// Only as long as the dialog is not confirmed.
    pub early_only: bool,
}

impl Replaces {
    /// `call-id;to-tag=…;from-tag=…[;early-only]`.
    pub fn parse(text: &str) -> Option<Self> {
        let (call_id, params) = text.split_once(';')?;
        let (call_id, params) = (call_id.trim(), Params(params));
        let tag = |name| params.get(name).filter(|tag| !tag.is_empty()).map(str::to_owned);
        let (to_tag, from_tag) = (tag("to-tag")?, tag("from-tag")?);
        let early_only = params.get("early-only").is_some();
        let call_id = Some(call_id).filter(|it| !it.is_empty())?.to_owned();
        Some(Self { call_id, to_tag, from_tag, early_only })
    }

    /// As a header value.
    pub fn header(&self) -> String {
        let Self { call_id, to_tag, from_tag, early_only } = self;
        let early_only = if *early_only { ";early-only" } else { "" };
        format!("{call_id};to-tag={to_tag};from-tag={from_tag}{early_only}")
    }
}

/// Whom a REFER wants called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferTo {
    /// Without its headers.
    pub uri: String,
    pub replaces: Option<Replaces>,
}

impl ReferTo {
    /// `None` if it is no URI, asks for another method than INVITE, or its Replaces is wrong.
    pub fn parse(value: &str) -> Option<Self> {
        let uri = NameAddr::parse(value)?.uri;
        let (uri, headers) = uri.split_once('?').unwrap_or((uri, ""));
        let method = uri.split_once('@').map_or(uri, |(_, rest)| rest).split_once(';');
        let method = method.and_then(|(_, params)| Params(params).get("method"));
        if !uri::is_uri(uri) || method.is_some_and(|method| method != "INVITE") {
            return None;
        }
        let mut fields = headers.split('&').filter_map(|field| field.split_once('='));
        let replaces = fields.find(|(name, _)| name.eq_ignore_ascii_case("Replaces"));
        let replaces = match replaces {
            Some((_, value)) => Some(Replaces::parse(&uri::unescape(value))?),
            None => None,
        };
        Some(Self { uri: uri.to_owned(), replaces })
    }

    /// As a header value.
    pub(crate) fn header(&self) -> String {
        match &self.replaces {
            Some(replaces) => format!("<{}?Replaces={}>", self.uri, escape(&replaces.header())),
            None => format!("<{}>", self.uri),
        }
    }

    /// Whether it can be sent.
    pub(crate) fn is_sound(&self) -> bool {
        let sound = |it: &Replaces| {
            param::is_token(&it.to_tag) && param::is_token(&it.from_tag) && !it.call_id.is_empty()
        };
        uri::is_uri(&self.uri)
            && !self.uri.contains('?')
            && self.replaces.as_ref().is_none_or(sound)
    }
}

/// Escapes what a header in a URI may not hold as it is (RFC 3261 §25.1, `hvalue`).
fn escape(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&byte);
    let escaped = text.bytes().map(|byte| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    });
    escaped.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refer_to_is_read_with_its_replaces() {
        let plain = ReferTo::parse("sip:bob@example.com").unwrap();
        assert_eq!((plain.uri.as_str(), plain.replaces), ("sip:bob@example.com", None));
        let value = "\"B\" <sip:b@h;method=INVITE?X=1&replaces=c%40h%3Bto-tag%3D7%3Bfrom-tag%3D8>";
        let refer_to = ReferTo::parse(value).unwrap();
        let replaces = refer_to.replaces.unwrap();
        assert_eq!(replaces.header(), "c@h;to-tag=7;from-tag=8");
        for wrong in [
            "",
            "bob",
            "<sip:b@h;method=BYE>",
            "<sip:b@h?Replaces=c>",
            "<sip:b@h?Replaces=c%3Bto-tag%3D7>",
        ] {
            assert_eq!(ReferTo::parse(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            call_id in "[!-:<-~]{1,30}", to_tag in "[a-z0-9.-]{1,9}", early_only in any::<bool>(),
        ) {
            let replaces = Replaces { call_id, to_tag, from_tag: "f".to_owned(), early_only };
            let refer_to = ReferTo { uri: "sip:b@h".to_owned(), replaces: Some(replaces) };
            prop_assert!(refer_to.is_sound());
            prop_assert_eq!(ReferTo::parse(&refer_to.header()), Some(refer_to));
        }
    }
}
