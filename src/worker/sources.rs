//! The sources that have something to read.
//!
//! Owns: which they are, each once. A source whose batch was full has had its edge: only what stands here brings its reader back.

use mio::Token;

use crate::transport::Ready;

type Source = (Token, Ready);

#[derive(Default)]
pub struct Sources {
    /// They had more to read than was read.
    unfinished: Vec<Source>,
    /// Empty, but keeps its memory.
    spare: Vec<Source>,
}

impl Sources {
    /// Is there anything to read, whatever the poll says?
    pub fn are_unfinished(&self) -> bool {
        !self.unfinished.is_empty()
    }

    /// What is to be read now: those that had more, and those that the poll named, each once: what a connection brought is worked off
    /// before its end is read.
    pub fn take(&mut self, named: impl Iterator<Item = Source>) -> Vec<Source> {
        let mut sources = std::mem::replace(&mut self.unfinished, std::mem::take(&mut self.spare));
        let old = sources.len();
        sources.extend(named);
        if old != 0 && sources.len() > old {
            sources.sort_unstable_by_key(|(token, _)| *token);
            sources.dedup_by(|next, kept| {
                next.0 == kept.0 && {
                    kept.1 |= next.1;
                    true
                }
            });
        }
        sources
    }

    /// It has more to read.
    pub fn remember(&mut self, source: Source) {
        self.unfinished.push(source);
    }

    /// All of them have been read.
    pub fn give_back(&mut self, mut sources: Vec<Source>) {
        sources.clear();
        self.spare = sources;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_had_more_and_is_named_again_is_read_once_with_all_that_was_said_of_it() {
        let closed = Ready { closed: true, ..Ready::default() };
        let mut sources = Sources::default();
        sources.remember((Token(7), Ready::READABLE));
        sources.remember((Token(3), Ready::READABLE));
        let now = sources.take([(Token(9), Ready::READABLE), (Token(7), closed)].into_iter());
        let both = Ready { readable: true, writable: false, closed: true };
        assert_eq!(now, [(Token(3), Ready::READABLE), (Token(7), both), (Token(9), Ready::READABLE)]);
        assert!(!sources.are_unfinished());
        sources.give_back(now);
        // Neither old ones nor those of the last turn.
        assert!(sources.take([].into_iter()).is_empty());
    }
}
