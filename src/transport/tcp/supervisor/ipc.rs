//! What the supervisor and the other processes say to each other, over two pairs of sockets for each process.
//!
//! As in OpenSER one pair (`asks`) is the sender's, one (`news`) the owner's, so that who waits for a descriptor meets no
//! connection there. A note names a connection by its entry in `flows`; where OpenSER passes a descriptor, it comes with one.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use sys::passing::{self, Wait};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::transport::FlowId;

/// What is said. In brackets OpenSER's word for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Word {
    /// asks →: give me a descriptor of it (`CONN_GET_FD`).
    Get = 1,
    /// asks ←: here it is.
    Here,
    /// asks ←: there is none.
    Gone,
    /// asks →, with a descriptor: I opened it (`CONN_NEW`).
    New,
    /// asks →: it could not be written, or opened (`CONN_ERROR`).
    Bad,
    /// news ←, with a descriptor: it is yours to read.
    Own,
    /// news →: it is idle, take it back (`CONN_RELEASE`).
    Return,
    /// news →: its peer ended it, or I did (`CONN_EOF`).
    Ended,
    /// news →: my predecessor is dead, and I have closed what was its.
    Hello,
}

impl Word {
    const ALL: [Word; 9] = {
        use Word::{Bad, Ended, Get, Gone, Hello, Here, New, Own, Return};
        [Get, Here, Gone, New, Bad, Own, Return, Ended, Hello]
    };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    pub word: Word,
    /// Of the question that this is, or is the answer to.
    pub number: u64,
    pub id: FlowId,
}

impl Note {
    pub fn of(word: Word, id: FlowId) -> Note {
        Note { word, number: 0, id }
    }
}

/// A note as it travels.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Bytes {
    number: u64,
    word: u32,
    index: u32,
    generation: u32,
    unused: u32,
}

pub fn say(line: BorrowedFd<'_>, note: Note, descriptor: Option<BorrowedFd<'_>>, wait: Wait) -> io::Result<()> {
    let bytes = Bytes {
        number: note.number,
        word: note.word as u32,
        index: note.id.index,
        generation: note.id.generation,
        unused: 0,
    };
    passing::send(line, bytes.as_bytes(), descriptor, wait)
}

/// The next note; an error `InvalidData` is one that is none.
pub fn hear(line: BorrowedFd<'_>, wait: Wait) -> io::Result<(Note, Option<OwnedFd>)> {
    let mut buffer = [0; size_of::<Bytes>()];
    let (length, descriptor) = passing::receive(line, &mut buffer, wait)?;
    let bytes = Bytes::read_from_bytes(&buffer).ok().filter(|_| length == buffer.len());
    let note = bytes.and_then(|bytes| {
        let word = Word::ALL.into_iter().find(|word| *word as u32 == bytes.word)?;
        let id = FlowId { index: bytes.index, generation: bytes.generation };
        Some(Note { word, number: bytes.number, id })
    });
    Ok((note.ok_or(io::ErrorKind::InvalidData)?, descriptor))
}
