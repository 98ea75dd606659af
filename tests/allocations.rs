//! Nothing is allocated for a message on its way through the message room.

use allocation_counter::measure;

use strowger::message::scan;

#[path = "../benches/messages/mod.rs"]
mod messages;

/// What `work` allocates, the first time, when its buffers are there already.
fn allocations(work: impl FnOnce()) -> u64 {
    measure(work).count_total
}

#[test]
fn the_count_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![1u8]))), 1);
}

#[test]
fn a_message_is_scanned_and_forwarded_without_an_allocation() {
    let (mut via, mut out) = (Vec::with_capacity(256), Vec::with_capacity(4096));
    for text in [messages::invite(), messages::ok(), messages::ack()] {
        assert_eq!(allocations(|| assert!(scan(text.as_bytes()).is_ok())), 0, "{text}");
    }
    for (text, cut_routes) in [(messages::invite(), 0), (messages::ack(), 2)] {
        let work = || assert_ne!(messages::forward(text.as_bytes(), cut_routes, &mut via, &mut out), 0);
        assert_eq!(allocations(work), 0, "{text}");
        assert!(out.len() > 400, "{text}");
    }
    // However many Routes there are.
    let many = "Route: <sip:192.0.2.1;lr>\r\n".repeat(100);
    let text = messages::ack().replace("Max-Forwards", &format!("{many}Max-Forwards"));
    let work = || assert_ne!(messages::forward(text.as_bytes(), 102, &mut via, &mut out), 0);
    assert_eq!(allocations(work), 0, "{text}");
    assert!(!String::from_utf8_lossy(&out).contains("\r\nRoute:"));
    let text = messages::ok();
    // The branch has the form of ours, but another key made it.
    assert_eq!(allocations(|| assert!(!messages::respond(text.as_bytes(), &mut out))), 0, "{text}");
    assert!(out.len() > 300, "{text}");
}
