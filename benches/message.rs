//! What one message costs in the message room: nanoseconds and heap allocations, rsip's parser beside it.
//!
//! Wanted: scan of an INVITE of 700 bytes ≤ 300 ns; scan, key and splice ≤ 500 ns; 0 allocations.
//! Look at the columns `fastest` and `median`; a benchmark that allocates gets lines of its own below it (and
//! `tests/allocations.rs` fails). `calibration` is the same work everywhere: it tells how busy the machine was.

use std::hint::black_box;

use divan::{AllocProfiler, Bencher};

use strowger::message;

mod messages;

#[global_allocator]
static COUNTING: AllocProfiler = AllocProfiler::system();

fn main() {
    for (name, text) in [("INVITE", messages::invite()), ("200", messages::ok()), ("ACK", messages::ack())] {
        eprintln!("{name}: {} bytes", text.len());
    }
    divan::main();
}

mod calibration {
    use std::hash::Hasher;

    use super::*;

    #[divan::bench(sample_count = 400, sample_size = 500)]
    fn memchr_700(bencher: Bencher) {
        let text = [b'x'; 700];
        bencher.bench(|| black_box(memchr::memchr(b'y', black_box(&text))));
    }

    #[divan::bench(sample_count = 400, sample_size = 500)]
    fn siphash_1_3_of_40(bencher: Bencher) {
        bencher.bench(|| {
            let mut hasher = siphasher::sip::SipHasher13::new_with_keys(1, 2);
            hasher.write(black_box(&[b'x'; 40]));
            hasher.finish()
        });
    }
}

mod invite {
    use super::*;

    #[divan::bench(sample_count = 400, sample_size = 500)]
    fn scan(bencher: Bencher) {
        let text = messages::invite();
        bencher.bench(|| black_box(message::scan(black_box(text.as_bytes()))).is_ok());
    }

    #[divan::bench(sample_count = 400, sample_size = 500)]
    fn scan_key_splice(bencher: Bencher) {
        let text = messages::invite();
        let (mut via, mut out) = (Vec::with_capacity(256), Vec::with_capacity(4096));
        bencher.bench_local(|| black_box(messages::forward(black_box(text.as_bytes()), 0, &mut via, &mut out)));
    }

    #[divan::bench(sample_count = 200, sample_size = 50)]
    fn rsip_parse(bencher: Bencher) {
        let text = messages::invite();
        bencher.bench(|| black_box(rsip::SipMessage::try_from(black_box(text.as_bytes()))).is_ok());
    }
}

mod ok_200 {
    use super::*;

    #[divan::bench(sample_count = 400, sample_size = 500)]
    fn scan(bencher: Bencher) {
        let text = messages::ok();
        bencher.bench(|| black_box(message::scan(black_box(text.as_bytes()))).is_ok());
    }

    #[divan::bench(sample_count = 400, sample_size = 500)]
    fn scan_key_splice(bencher: Bencher) {
        let text = messages::ok();
        let mut out = Vec::with_capacity(4096);
        bencher.bench_local(|| black_box(messages::respond(black_box(text.as_bytes()), &mut out)));
    }

    #[divan::bench(sample_count = 200, sample_size = 50)]
    fn rsip_parse(bencher: Bencher) {
        let text = messages::ok();
        bencher.bench(|| black_box(rsip::SipMessage::try_from(black_box(text.as_bytes()))).is_ok());
    }
}

mod ack {
    use super::*;

    #[divan::bench(sample_count = 400, sample_size = 500)]
    fn scan(bencher: Bencher) {
        let text = messages::ack();
        bencher.bench(|| black_box(message::scan(black_box(text.as_bytes()))).is_ok());
    }

    #[divan::bench(sample_count = 400, sample_size = 500)]
    fn scan_key_splice(bencher: Bencher) {
        let text = messages::ack();
        let (mut via, mut out) = (Vec::with_capacity(256), Vec::with_capacity(4096));
        bencher.bench_local(|| black_box(messages::forward(black_box(text.as_bytes()), 2, &mut via, &mut out)));
    }

    #[divan::bench(sample_count = 200, sample_size = 50)]
    fn rsip_parse(bencher: Bencher) {
        let text = messages::ack();
        bencher.bench(|| black_box(rsip::SipMessage::try_from(black_box(text.as_bytes()))).is_ok());
    }
}
