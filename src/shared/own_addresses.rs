//! Our own addresses that peers have sent datagrams to, where a listener is bound to all of them: numbered, so that four bytes of a
//! `Flow` say which (E05), and transactions grow by nothing.
//!
//! Owns: the list, which only grows and is the same in every process. Never asks the system.

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};

use sys::memory::{Mapping, Plan, Span};

/// More than a machine has that is called by all of them; what finds no place is answered from where the system likes.
const PLACES: usize = 64;
/// Both halves of the address, IPv4 as in `Address`, then whether they are written.
const WORDS: usize = 3;

#[derive(Clone, Copy)]
pub struct OwnAddresses {
    /// How many places are taken, then these.
    words: &'static [AtomicU64],
}

impl OwnAddresses {
    pub fn plan(plan: &mut Plan) -> Span<AtomicU64> {
        plan.array(1 + PLACES * WORDS)
    }

    pub fn take(mapping: &Mapping, words: &Span<AtomicU64>) -> io::Result<OwnAddresses> {
        Ok(OwnAddresses { words: mapping.array(words) })
    }

    /// The number of this address, which it gets when it is first seen; 0: there are too many.
    #[must_use]
    pub fn number(&self, ip: IpAddr) -> u32 {
        let Some((taken, places)) = self.words.split_first() else { return 0 };
        let bits = match ip {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
            IpAddr::V6(v6) => v6.to_bits(),
        };
        let known = taken.load(Ordering::Acquire) as usize;
        if let Some(at) = places.chunks_exact(WORDS).take(known).position(|place| read(place) == Some(bits)) {
            return at as u32 + 1;
        }
        if known >= PLACES {
            return 0;
        }
        // Another process may enter the same one just now: then it has two numbers, and either is right. One that dies in here
        // leaves a place that nobody reads.
        let at = taken.fetch_add(1, Ordering::AcqRel) as usize;
        let Some([high, low, written]) = places.chunks_exact(WORDS).nth(at) else { return 0 };
        high.store((bits >> 64) as u64, Ordering::Relaxed);
        low.store(bits as u64, Ordering::Relaxed);
        written.store(1, Ordering::Release);
        at as u32 + 1
    }

    /// The address with this number; none for 0.
    #[must_use]
    pub fn ip(&self, number: u32) -> Option<IpAddr> {
        let (_, places) = self.words.split_first()?;
        let bits = read(places.chunks_exact(WORDS).nth(number.checked_sub(1)? as usize)?)?;
        Some(IpAddr::V6(Ipv6Addr::from_bits(bits)).to_canonical())
    }
}

fn read(place: &[AtomicU64]) -> Option<u128> {
    let [high, low, written] = place else { return None };
    let is_written = written.load(Ordering::Acquire) != 0;
    is_written.then(|| u128::from(high.load(Ordering::Relaxed)) << 64 | u128::from(low.load(Ordering::Relaxed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_keeps_its_number_and_too_many_have_none() {
        let mut plan = Plan::new();
        let words = OwnAddresses::plan(&mut plan);
        let addresses = OwnAddresses::take(&plan.map().unwrap(), &words).unwrap();
        let ips: Vec<IpAddr> =
            (0..64_u8)
                .map(|n| {
                    if n % 2 == 0 {
                        [192, 0, 2, n].into()
                    } else {
                        IpAddr::V6(Ipv6Addr::from_bits(u128::from(n) << 64))
                    }
                })
                .collect();
        for _ in 0..2 {
            let numbers: Vec<_> = ips.iter().map(|ip| addresses.number(*ip)).collect();
            assert_eq!(numbers, (1..=64).collect::<Vec<_>>());
        }
        assert_eq!(addresses.number([192, 0, 2, 200].into()), 0);
        let back: Vec<_> = (1..=64).filter_map(|number| addresses.ip(number)).collect();
        assert_eq!(back, ips);
        assert_eq!((addresses.ip(0), addresses.ip(65), addresses.ip(u32::MAX)), (None, None, None));
    }
}
