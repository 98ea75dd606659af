//! The descriptor cache (the paper's §5.1, `tcp.descriptor_cache`): descriptors that this process was given, kept for the next message.
//!
//! Owns: descriptors of its own by connection, index and generation, so that a number used again is another connection. Bounded: the
//! one that was not used for longest makes room (second chance). Never asks for one.

use std::collections::HashMap;
use std::net::TcpStream;

use crate::transport::FlowId;

pub struct Cache {
    most: usize,
    kept: Vec<Kept>,
    by_id: HashMap<FlowId, usize>,
    /// Where the search for the next to go begins.
    hand: usize,
}

struct Kept {
    id: FlowId,
    stream: TcpStream,
    /// Since the hand was here.
    used: bool,
}

impl Cache {
    pub fn new(most: usize) -> Cache {
        Cache { most: most.max(1), kept: Vec::new(), by_id: HashMap::new(), hand: 0 }
    }

    pub fn get(&mut self, id: FlowId) -> Option<&TcpStream> {
        let kept = self.kept.get_mut(*self.by_id.get(&id)?)?;
        kept.used = true;
        Some(&kept.stream)
    }

    pub fn keep(&mut self, id: FlowId, stream: TcpStream) {
        self.remove(id);
        while self.kept.len() >= self.most {
            self.hand = if self.hand < self.kept.len() { self.hand } else { 0 };
            match self.kept.get_mut(self.hand) {
                Some(kept) if kept.used => {
                    kept.used = false;
                    self.hand += 1;
                }
                Some(kept) => {
                    let id = kept.id;
                    self.remove(id);
                }
                None => break,
            }
        }
        self.by_id.insert(id, self.kept.len());
        self.kept.push(Kept { id, stream, used: false });
    }

    pub fn remove(&mut self, id: FlowId) {
        let Some(place) = self.by_id.remove(&id) else { return };
        self.kept.swap_remove(place);
        if let Some(moved) = self.kept.get(place) {
            self.by_id.insert(moved.id, place);
        }
    }

    /// Lets those go that `over` names: of the ids that it is given, which are all.
    pub fn purge(&mut self, over: impl FnOnce(&[FlowId]) -> Vec<FlowId>) {
        let all: Vec<FlowId> = self.kept.iter().map(|kept| kept.id).collect();
        over(&all).into_iter().for_each(|id| self.remove(id));
    }

    pub fn clear(&mut self) {
        self.kept.clear();
        self.by_id.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn it_holds_no_more_than_it_may_and_lets_go_what_was_not_used() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let id = |index, generation| FlowId { index, generation };
        let mut cache = Cache::new(3);
        for index in 1..=3 {
            cache.keep(id(index, 1), stream.try_clone().unwrap());
        }
        assert!(cache.get(id(1, 1)).is_some() && cache.get(id(1, 2)).is_none(), "another generation is another");
        cache.keep(id(4, 1), stream.try_clone().unwrap());
        assert!(cache.get(id(1, 1)).is_some() && cache.get(id(2, 1)).is_none());
        cache.purge(|ids| ids.iter().copied().filter(|id| id.index == 3).collect());
        assert!(cache.get(id(3, 1)).is_none() && cache.get(id(4, 1)).is_some());
        for index in 10..1_000 {
            cache.keep(id(index, 1), stream.try_clone().unwrap());
            assert!(cache.kept.len() <= 3 && cache.by_id.len() == cache.kept.len());
            assert!(cache.get(id(index, 1)).is_some());
        }
    }
}
