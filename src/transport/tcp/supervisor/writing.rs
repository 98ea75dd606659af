//! Writing one message on a descriptor that others may have, too.
//!
//! Owns: the turn of a connection, as OpenSER's `write_lock`: messages of several processes never mix. It is a robust lock: when its
//! holder died within a message, the stream is torn, and the next one hears so. A socket without room is waited for, as in
//! `tsend_stream`.

use std::io::{self, IoSlice, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::Duration;

use super::patience::Patience;
use crate::shared::supervision::Supervision;
use crate::timer::Tick;
use crate::transport::FlowId;

/// Writes it whole.
///
/// # Errors
/// The connection is of no more use: `TimedOut` when its peer does not read (or another process writes to it for too long), or the stream
/// is torn, or what the socket says.
pub fn write(
    supervision: &Supervision,
    id: FlowId,
    stream: &TcpStream,
    pieces: [&[u8]; 2],
    patience: &mut Patience,
    now: Tick,
) -> io::Result<()> {
    let turn = supervision.turn(id).ok_or(io::ErrorKind::NotFound)?;
    let left = patience.left(now);
    let Some(mut turn) = turn.lock_within(Duration::from_millis(left)) else {
        patience.spend(left);
        return Err(io::ErrorKind::TimedOut.into());
    };
    if turn.torn == id.generation {
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    turn.writing = id.generation;
    let written = write_all(stream, pieces, patience, now);
    turn.writing = 0;
    if written.is_err() {
        turn.torn = id.generation;
    }
    written
}

fn write_all(mut stream: &TcpStream, pieces: [&[u8]; 2], patience: &mut Patience, now: Tick) -> io::Result<()> {
    let [mut head, mut body] = pieces;
    while !head.is_empty() || !body.is_empty() {
        match stream.write_vectored(&[IoSlice::new(head), IoSlice::new(body)]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                let of_head = written.min(head.len());
                head = head.get(of_head..).unwrap_or_default();
                body = body.get(written - of_head..).unwrap_or_default();
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                if !patience.until_writable(stream.as_fd(), u64::MAX, now) {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
