//! Notifications: what the kernel says about associations (RFC 6458 §6.1), read field by field from the receive buffer.

use std::net::SocketAddr;

use super::uapi;
use crate::sockaddr;

/// One notification. Any process may read any of them, and their order between processes is not kept (M27).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notification<'a> {
    /// SCTP_ASSOC_CHANGE, RFC 6458 §6.1.1. `error` is a cause of RFC 9260 §3.3.10, or 0.
    AssociationChange {
        state: AssociationState,
        association: u32,
        error: u16,
        outbound_streams: u16,
        inbound_streams: u16,
    },
    /// SCTP_SEND_FAILED_EVENT, RFC 6458 §6.1.11: one for each fragment of a message that did not get there (M28). `unsent`: it never
    /// left; else it left but nobody acknowledged it. `context` is that of `SndInfo`.
    SendFailed { association: u32, error: u32, unsent: bool, context: u32, payload: &'a [u8] },
    /// SCTP_PEER_ADDR_CHANGE, RFC 6458 §6.1.2.
    PeerAddressChange { association: u32, address: SocketAddr, state: PeerAddressState, error: u32 },
    /// SCTP_SHUTDOWN_EVENT, RFC 6458 §6.1.5: the peer sends no more, and takes no more.
    Shutdown { association: u32 },
    /// SCTP_PARTIAL_DELIVERY_EVENT, RFC 6458 §6.1.7: the rest of a message that came in pieces will not come.
    PartialDelivery { association: u32, stream: u16 },
    /// A type that we did not subscribe to.
    Other(u16),
}

/// `enum sctp_sac_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AssociationState {
    /// SCTP_COMM_UP: ready.
    Up,
    /// SCTP_COMM_LOST: aborted, or the peer stopped answering.
    Lost,
    /// SCTP_RESTART: the peer began anew; what it had not acknowledged is lost (M38).
    Restart,
    /// SCTP_SHUTDOWN_COMP: closed in good order.
    ShutdownComplete,
    /// SCTP_CANT_STR_ASSOC: could not be set up.
    CannotStart,
    Other(u16),
}

/// `enum sctp_spc_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerAddressState {
    Available,
    Unreachable,
    Removed,
    Added,
    MadePrimary,
    Confirmed,
    /// Potentially failed, RFC 7829.
    Failing,
    Other(u32),
}

/// Reads the bytes of a message with `Received::notification`. None: shorter than its type says.
///
/// A notification longer than its buffer comes in pieces, and the second piece cannot be told from a notification by itself. The
/// longest is SEND_FAILED_EVENT: 32 bytes and a fragment, at most one path MTU (65,536 bytes on loopback).
#[must_use]
pub fn parse_notification(bytes: &[u8]) -> Option<Notification<'_>> {
    let short = |at: usize| Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    let long = |at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    // All begin with type (16 bits), flags (16), length (32).
    let kind = short(0)?;
    let flags = short(2)?;
    Some(match kind {
        // state, error, outbound_streams, inbound_streams (16 bits each), assoc_id.
        uapi::SCTP_ASSOC_CHANGE => Notification::AssociationChange {
            state: match short(8)? {
                0 => AssociationState::Up,
                1 => AssociationState::Lost,
                2 => AssociationState::Restart,
                3 => AssociationState::ShutdownComplete,
                4 => AssociationState::CannotStart,
                other => AssociationState::Other(other),
            },
            error: short(10)?,
            outbound_streams: short(12)?,
            inbound_streams: short(14)?,
            association: long(16)?,
        },
        // error, then sctp_sndinfo (sid, flags, ppid, context, assoc_id), then assoc_id, then the data.
        uapi::SCTP_SEND_FAILED_EVENT => Notification::SendFailed {
            error: long(8)?,
            unsent: flags == 0,
            context: long(20)?,
            association: long(28)?,
            payload: bytes.get(32..)?,
        },
        // A sockaddr_storage of 128 bytes, state, error, assoc_id.
        uapi::SCTP_PEER_ADDR_CHANGE => Notification::PeerAddressChange {
            address: sockaddr::read(bytes.get(8..136)?)?.0,
            state: match long(136)? {
                0 => PeerAddressState::Available,
                1 => PeerAddressState::Unreachable,
                2 => PeerAddressState::Removed,
                3 => PeerAddressState::Added,
                4 => PeerAddressState::MadePrimary,
                5 => PeerAddressState::Confirmed,
                6 => PeerAddressState::Failing,
                other => PeerAddressState::Other(other),
            },
            error: long(140)?,
            association: long(144)?,
        },
        uapi::SCTP_SHUTDOWN_EVENT => Notification::Shutdown { association: long(8)? },
        // indication, assoc_id, stream, seq.
        uapi::SCTP_PARTIAL_DELIVERY_EVENT => {
            Notification::PartialDelivery { association: long(12)?, stream: long(16)? as u16 }
        }
        other => Notification::Other(other),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A notification of that type with `length` bytes in all, each the low byte of its offset but for the fields named.
    fn notification(kind: u16, length: usize, fields: &[(usize, &[u8])]) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..length).map(|i| i as u8).collect();
        for (at, field) in [(0, &kind.to_ne_bytes()[..]), (2, &[0, 0])].iter().chain(fields) {
            bytes[*at..*at + field.len()].copy_from_slice(field);
        }
        bytes
    }

    fn word(at: u8) -> u32 {
        u32::from_ne_bytes([at, at + 1, at + 2, at + 3])
    }

    #[test]
    fn a_failed_send_gives_back_context_and_payload() {
        let bytes = notification(uapi::SCTP_SEND_FAILED_EVENT, 40, &[(32, b"INVITE s")]);
        let expected = Notification::SendFailed {
            association: word(28),
            error: word(8),
            unsent: true,
            context: word(20),
            payload: b"INVITE s",
        };
        assert_eq!(parse_notification(&bytes), Some(expected));
    }

    #[test]
    fn a_change_of_a_peers_address_names_it() {
        let address = "[::1]:5060".parse().unwrap();
        let name = sockaddr::Name::new(address);
        let fields: [(usize, &[u8]); 2] = [(8, name.as_bytes()), (136, &5u32.to_ne_bytes())];
        let bytes = notification(uapi::SCTP_PEER_ADDR_CHANGE, 148, &fields);
        let expected = Notification::PeerAddressChange {
            association: word(144),
            address,
            state: PeerAddressState::Confirmed,
            error: word(140),
        };
        assert_eq!(parse_notification(&bytes), Some(expected));
    }

    #[test]
    fn a_notification_cut_short_is_none_and_an_unknown_one_is_other() {
        for (kind, length) in [
            (uapi::SCTP_ASSOC_CHANGE, 20),
            (uapi::SCTP_SEND_FAILED_EVENT, 32),
            (uapi::SCTP_SHUTDOWN_EVENT, 12),
            (uapi::SCTP_PARTIAL_DELIVERY_EVENT, 20),
        ] {
            let bytes = notification(kind, length, &[]);
            assert!(parse_notification(&bytes).is_some());
            for end in 0..length {
                assert_eq!(parse_notification(&bytes[..end]), None, "{kind:#x} of {end} bytes");
            }
        }
        assert_eq!(parse_notification(&notification(0x8009, 12, &[])), Some(Notification::Other(0x8009)));
        // An address of no family that we know.
        assert_eq!(parse_notification(&notification(uapi::SCTP_PEER_ADDR_CHANGE, 148, &[])), None);
    }
}
