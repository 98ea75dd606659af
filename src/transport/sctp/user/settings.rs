//! What the configuration means for the protocol in user space.

use std::time::Duration;

use dcsctp::api::Options;

use super::endpoint::How;
use crate::config::{Limits, Sctp};

/// Messages of the largest size that may be under way to us in pieces, per association: its receive window.
const WINDOW_MESSAGES: usize = 4;
/// Streams a peer may send on: any that SIP uses (A09), far from the 65,535 that would cost memory.
const INBOUND_STREAMS: u16 = 128;

/// `port`: our SCTP port.
#[must_use]
pub fn options(sctp: &Sctp, limits: &Limits, port: u16) -> Options {
    let milliseconds = |ms: u32| Duration::from_millis(u64::from(ms));
    let rto_initial = milliseconds(sctp.srto_initial_ms);
    let queue = limits.association_queue_bytes;
    let own = Options::default();
    let given = |ms: u32, own| if ms == 0 { own } else { milliseconds(ms) };
    Options {
        local_port: port,
        announced_maximum_incoming_streams: INBOUND_STREAMS,
        announced_maximum_outgoing_streams: sctp.stream + 1,
        mtu: usize::from(sctp.mtu),
        max_message_size: limits.message_bytes,
        max_receiver_window_buffer_size: window(limits),
        max_send_buffer_size: queue,
        per_stream_send_queue_limit: queue,
        total_buffered_amount_low_threshold: queue / 2,
        rto_initial,
        rto_max: milliseconds(sctp.srto_max_ms),
        rto_min: milliseconds(sctp.srto_min_ms),
        t1_init_timeout: rto_initial,
        t1_cookie_timeout: rto_initial,
        t2_shutdown_timeout: rto_initial,
        max_timer_backoff_duration: Some(milliseconds(sctp.srto_max_ms.min(u32::from(sctp.init_max_timeo_ms)))),
        heartbeat_interval: milliseconds(sctp.hbinterval_ms),
        delayed_ack_max_timeout: given(sctp.sack_delay_ms, own.delayed_ack_max_timeout),
        max_burst: if sctp.max_burst == 0 { own.max_burst } else { i32::try_from(sctp.max_burst).unwrap_or(i32::MAX) },
        // The crate knows one path, so the association's own limit is the path's too.
        max_retransmissions: Some(u32::from(sctp.asocmaxrxt)),
        max_init_retransmits: Some(init_retransmits(sctp)),
        ..own
    }
}

/// Bytes that the house keeps for one association at most, of what it could not send yet and of messages that came in pieces. What is
/// sent and not acknowledged, which the peer's window bounds, is beside it.
#[must_use]
pub fn room(limits: &Limits) -> usize {
    limits.association_queue_bytes + window(limits)
}

fn window(limits: &Limits) -> usize {
    limits.message_bytes.max(16_384) * WINDOW_MESSAGES
}

/// How SIP is sent.
#[must_use]
pub fn how(sctp: &Sctp) -> How {
    let lifetime = (sctp.send_ttl_ms > 0).then(|| Duration::from_millis(u64::from(sctp.send_ttl_ms)));
    How { stream: sctp.stream, unordered: sctp.unordered, lifetime }
}

/// The crate doubles the wait for INIT ACK and COOKIE ACK without a cap, the kernel up to `init_max_timeo_ms`: as many attempts as
/// fit into the time that the kernel's take, so that a dead peer is known as early (M23).
fn init_retransmits(sctp: &Sctp) -> u32 {
    let first = u64::from(sctp.srto_initial_ms);
    let (whole, _) = sctp.dead_peer_ms();
    (0..=20).take_while(|n| first * ((2 << n) - 1) <= whole).last().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn what_is_0_is_the_crates_and_what_is_given_counts() {
        let Config { sctp, live, .. } = Config::built_in().unwrap();
        let (own, ours) = (Options::default(), options(&sctp, &live.limits, 5060));
        assert_eq!((ours.delayed_ack_max_timeout, ours.max_burst), (own.delayed_ack_max_timeout, own.max_burst));
        assert_eq!((how(&sctp).stream, how(&sctp).unordered, how(&sctp).lifetime), (0, true, None)); // A08
        let sctp = Sctp { sack_delay_ms: 50, max_burst: 9, send_ttl_ms: 700, stream: 3, unordered: false, ..sctp };
        let ours = options(&sctp, &live.limits, 5060);
        assert_eq!((ours.delayed_ack_max_timeout, ours.max_burst), (Duration::from_millis(50), 9));
        assert_eq!(ours.announced_maximum_outgoing_streams, 4);
        assert_eq!(how(&sctp).lifetime, Some(Duration::from_millis(700)));
    }

    #[test]
    fn a_dead_peer_is_given_up_no_later_than_by_the_kernel() {
        let sctp = Config::built_in().unwrap().sctp;
        // 1 + 2 + 3 + 3 + 3 = 12 s; 1 + 2 + 4 = 7 s, and 15 s with one more.
        assert_eq!(init_retransmits(&sctp), 2);
        assert_eq!(
            init_retransmits(&Sctp { init_max_timeo_ms: 10, srto_initial_ms: 1000, init_max_attempts: 1, ..sctp }),
            0
        );
    }
}
