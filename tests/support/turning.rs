//! A peer over SCTP in user space that turns by itself: its endpoint lives in a thread of its own, only messages go in and out.
//!
//! One association, which it opens. When that has ended, so has the thread, and both ways are shut.

use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::tunnel::TunnelPeer;
use super::{patience, wait_for};

/// Bytes that may wait in the endpoint; who sends more waits.
const ROOM: usize = 65_536;
const PAUSE: Duration = Duration::from_millis(1);

pub struct Turning {
    /// None only while it ends.
    outgoing: Option<SyncSender<Vec<u8>>>,
    arrived: Mutex<Receiver<Vec<u8>>>,
    thread: Option<JoinHandle<()>>,
}

impl Turning {
    /// Sets an association up from this address to who has that one, behind this UDP port.
    pub fn call(from: SocketAddr, to: SocketAddr, tunnel: u16) -> io::Result<Turning> {
        let (outgoing, orders) = sync_channel(64);
        let (arrivals, arrived) = channel();
        let (up, is_up) = channel();
        let thread = std::thread::spawn(move || {
            let mut peer = TunnelPeer::on(from);
            let tag = peer.call(to, tunnel);
            let there = wait_for(patience(5), || {
                peer.turn();
                peer.up.contains(&tag).then_some(())
            });
            if there.is_some() && up.send(()).is_ok() {
                turn(&mut peer, tag, &orders, &arrivals);
            }
        });
        is_up.recv().map_err(|_| io::ErrorKind::TimedOut)?;
        Ok(Turning { outgoing: Some(outgoing), arrived: Mutex::new(arrived), thread: Some(thread) })
    }

    pub fn send(&self, message: &[u8]) -> io::Result<()> {
        let outgoing = self.outgoing.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        outgoing.send(message.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// The next message; `Disconnected`: the association has ended.
    pub fn receive(&self, limit: Duration) -> Result<Vec<u8>, RecvTimeoutError> {
        self.arrived.lock().expect("no reader has panicked").recv_timeout(limit)
    }
}

/// In good order: SHUTDOWN, and its answer.
impl Drop for Turning {
    fn drop(&mut self) {
        self.outgoing = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn turn(peer: &mut TunnelPeer, tag: u32, orders: &Receiver<Vec<u8>>, arrivals: &Sender<Vec<u8>>) {
    loop {
        peer.turn();
        for (_, bytes) in peer.got.drain(..) {
            // Who does not listen any more is about to leave.
            let _ = arrivals.send(bytes);
        }
        if !peer.up.contains(&tag) {
            return;
        }
        if peer.endpoint.queued(tag) >= ROOM {
            std::thread::sleep(PAUSE);
            continue;
        }
        match orders.recv_timeout(PAUSE) {
            Ok(message) => peer.send(tag, &message),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    peer.shut_down(tag);
    wait_for(Duration::from_secs(1), || {
        peer.turn();
        (!peer.up.contains(&tag)).then_some(())
    });
}
