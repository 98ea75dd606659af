//! `Method`: the methods that some rule names (RFC 3261 §7.1); all others are `Other` and are proxied all the same (B02).

/// A request's method. Methods are case-sensitive (RFC 3261 §7.1): `invite` is `Other`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Method {
    #[default]
    Other = 0,
    Invite = 1,
    Ack = 2,
    Cancel = 3,
    Bye = 4,
    Register = 5,
    Options = 6,
    Subscribe = 7,
    Notify = 8,
    Refer = 9,
    Update = 10,
    Prack = 11,
    Info = 12,
    Message = 13,
    Publish = 14,
}

impl Method {
    pub const ALL: [Method; 15] = [
        Method::Other,
        Method::Invite,
        Method::Ack,
        Method::Cancel,
        Method::Bye,
        Method::Register,
        Method::Options,
        Method::Subscribe,
        Method::Notify,
        Method::Refer,
        Method::Update,
        Method::Prack,
        Method::Info,
        Method::Message,
        Method::Publish,
    ];

    #[inline]
    #[must_use]
    pub fn from_token(token: &[u8]) -> Method {
        match token {
            b"INVITE" => Method::Invite,
            b"ACK" => Method::Ack,
            b"CANCEL" => Method::Cancel,
            b"BYE" => Method::Bye,
            b"REGISTER" => Method::Register,
            b"OPTIONS" => Method::Options,
            b"SUBSCRIBE" => Method::Subscribe,
            b"NOTIFY" => Method::Notify,
            b"REFER" => Method::Refer,
            b"UPDATE" => Method::Update,
            b"PRACK" => Method::Prack,
            b"INFO" => Method::Info,
            b"MESSAGE" => Method::Message,
            b"PUBLISH" => Method::Publish,
            _ => Method::Other,
        }
    }

    /// Back from shared memory, where any byte may stand.
    #[must_use]
    pub fn from_u8(byte: u8) -> Option<Method> {
        Method::ALL.into_iter().find(|m| *m as u8 == byte)
    }

    /// The token; empty for `Other`, whose text only the message knows.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Other => "",
            Method::Invite => "INVITE",
            Method::Ack => "ACK",
            Method::Cancel => "CANCEL",
            Method::Bye => "BYE",
            Method::Register => "REGISTER",
            Method::Options => "OPTIONS",
            Method::Subscribe => "SUBSCRIBE",
            Method::Notify => "NOTIFY",
            Method::Refer => "REFER",
            Method::Update => "UPDATE",
            Method::Prack => "PRACK",
            Method::Info => "INFO",
            Method::Message => "MESSAGE",
            Method::Publish => "PUBLISH",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_is_found_again_by_token_and_by_number() {
        for method in Method::ALL {
            assert_eq!(Method::from_u8(method as u8), Some(method));
            assert_eq!(Method::from_token(method.as_str().as_bytes()), method);
        }
        assert_eq!(Method::from_u8(15), None);
    }

    #[test]
    fn methods_are_case_sensitive() {
        assert_eq!(Method::from_token(b"invite"), Method::Other); // RFC 3261 §7.1
        assert_eq!(Method::from_token(b"!interesting-Method0123456789_*+`.%indeed'~"), Method::Other); // B02
    }
}
