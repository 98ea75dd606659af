//! `sendmmsg(2)`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use super::CMSG_HEADER;
use crate::sctp::uapi;
use crate::sockaddr::Name;
use crate::syscall::uninterrupted;

/// `sizeof(struct sctp_sndinfo)`, with its header: a multiple of 8, so nothing is rounded.
const SNDINFO: usize = CMSG_HEADER + 16;
/// `struct in_pktinfo` and `struct in6_pktinfo`, each with its header.
const PKTINFO: usize = CMSG_HEADER + 12;
const PKTINFO6: usize = CMSG_HEADER + 20;
/// Room for one of them, rounded up.
const CONTROL: usize = 40;

#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

/// Where a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// An address. SCTP: over the association that has it, else one is set up (M01, M02).
    Peer(SocketAddr),
    /// UDP on a wildcard: an address, and which of ours it leaves from; EINVAL and the like when that is not ours.
    PeerFrom(SocketAddr, IpAddr),
    /// SCTP: this association and no other; EPIPE when it is gone (M03).
    Association(u32),
}

/// SCTP_SNDINFO, RFC 6458 §5.3.4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SndInfo {
    pub stream: u16,
    pub unordered: bool,
    /// SCTP_EOF: shut the association down when everything is sent. The message must be empty.
    pub eof: bool,
    /// SCTP_ABORT: abort the association; the message, if any, becomes the reason told to the peer.
    pub abort: bool,
    /// In host order (written in network order).
    pub ppid: u32,
    /// Comes back with SEND_FAILED_EVENT.
    pub context: u32,
}

/// One message: its pieces are sent as one, an empty piece is nothing.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    pub to: To,
    pub pieces: [&'a [u8]; 2],
    /// SCTP only; `To::Association` without it means `SndInfo::default()`.
    pub sctp: Option<SndInfo>,
}

impl Item<'_> {
    /// What stands where a list has no message: sending it fails at once (there is no port 0).
    pub const NONE: Item<'static> =
        Item { to: To::Peer(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0)), pieces: [b"", b""], sctp: None };
}

/// Sends messages with as few system calls as the kernel allows. All arrays are allocated once.
pub struct Sender {
    headers: Box<[libc::mmsghdr]>,
    pieces: Box<[[libc::iovec; 2]]>,
    names: Box<[Name]>,
    controls: Box<[Control]>,
}

// SAFETY: the pointers in `headers` and `pieces` are written by `send` before each call and not used after it.
unsafe impl Send for Sender {}

impl Sender {
    /// For batches of `max` messages a system call (the kernel takes 1024).
    #[must_use]
    pub fn new(max: usize) -> Sender {
        let max = max.clamp(1, 1024);
        // SAFETY: these C structs are integers and pointers, for which zero is a valid value.
        let (header, piece) = unsafe { (std::mem::zeroed::<libc::mmsghdr>(), std::mem::zeroed::<libc::iovec>()) };
        Sender {
            headers: vec![header; max].into(),
            pieces: vec![[piece; 2]; max].into(),
            names: vec![Name::EMPTY; max].into(),
            controls: vec![Control([0; CONTROL]); max].into(),
        }
    }

    /// Sends `item(0)`, `item(1)`, ... `item(count - 1)` in this order until one is refused. Returns how many were taken, and why
    /// the next one was not: the error is that message's own (sendmmsg(2) does not keep one back: what it hides behind a partial
    /// count is found by asking again). Never waits; EAGAIN is an error here (`WouldBlock`), EINTR is retried. `item` may be asked
    /// for messages that are then not sent.
    ///
    /// `more` is MSG_MORE for all of them: SCTP holds them back until a message without it, for bundling. UDP must not use it.
    pub fn send<'a>(
        &mut self,
        fd: BorrowedFd<'_>,
        count: usize,
        more: bool,
        mut item: impl FnMut(usize) -> Item<'a>,
    ) -> (usize, Option<io::Error>) {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | if more { libc::MSG_MORE } else { 0 };
        let mut sent = 0;
        while sent < count {
            let filled = (count - sent).min(self.headers.len());
            let arrays = self.headers.iter_mut().zip(&mut self.pieces).zip(&mut self.names).zip(&mut self.controls);
            for (i, (((header, pieces), name), control)) in arrays.take(filled).enumerate() {
                fill(&mut header.msg_hdr, pieces, name, control, &item(sent + i));
            }
            let mut done = 0;
            while let Some(rest) = self.headers.get_mut(done..filled).filter(|rest| !rest.is_empty()) {
                let (headers, n) = (rest.as_mut_ptr(), rest.len() as libc::c_uint);
                let taken = uninterrupted(|| {
                    // SAFETY: these headers were filled above; each points to a name, pieces of a message (borrowed for 'a, which outlives
                    // this call) and control data, of the lengths given. The kernel writes nothing but `msg_len`.
                    unsafe { syscall!(sendmmsg(fd.as_raw_fd(), headers, n, flags)) }
                });
                match taken {
                    Ok(n) => done += n.unsigned_abs() as usize,
                    Err(e) => return (sent + done, Some(e)),
                }
            }
            sent += filled;
        }
        (sent, None)
    }
}

/// Points `header` at one message.
fn fill(
    header: &mut libc::msghdr,
    pieces: &mut [libc::iovec; 2],
    name: &mut Name,
    control: &mut Control,
    item: &Item<'_>,
) {
    let mut used = 0;
    for (to, from) in pieces.iter_mut().zip(item.pieces.iter().filter(|piece| !piece.is_empty())) {
        to.iov_base = from.as_ptr().cast_mut().cast();
        to.iov_len = from.len();
        used += 1;
    }
    header.msg_iov = pieces.as_mut_ptr();
    header.msg_iovlen = used;
    header.msg_flags = 0;

    match item.to {
        To::Peer(address) | To::PeerFrom(address, _) => {
            name.set(address);
            header.msg_name = name.as_mut_ptr().cast();
            header.msg_namelen = name.as_bytes().len() as libc::socklen_t;
        }
        To::Association(_) => {
            header.msg_name = ptr::null_mut();
            header.msg_namelen = 0;
        }
    }
    let len = match (item.to, item.sctp) {
        (To::PeerFrom(_, own), _) => from(own, control),
        (To::Peer(_), None) => 0,
        (To::Peer(_), Some(info)) => info.write(0, control),
        (To::Association(id), info) => info.unwrap_or_default().write(id, control),
    };
    header.msg_control = if len == 0 { ptr::null_mut() } else { control.0.as_mut_ptr().cast() };
    header.msg_controllen = len;
}

/// The control message that sends from this address, over whatever interface: `struct in_pktinfo` (interface, address, unused here) or
/// `struct in6_pktinfo` (address, interface). Returns its length.
fn from(own: IpAddr, control: &mut Control) -> usize {
    let bytes = &mut control.0;
    *bytes = [0; CONTROL];
    let (len, level, kind) = match own {
        IpAddr::V4(own) => {
            bytes[20..24].copy_from_slice(&own.octets());
            (PKTINFO, libc::IPPROTO_IP, libc::IP_PKTINFO)
        }
        IpAddr::V6(own) => {
            bytes[16..32].copy_from_slice(&own.octets());
            (PKTINFO6, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO)
        }
    };
    bytes[..8].copy_from_slice(&len.to_ne_bytes());
    bytes[8..12].copy_from_slice(&level.to_ne_bytes());
    bytes[12..16].copy_from_slice(&kind.to_ne_bytes());
    len
}

impl SndInfo {
    /// Writes the control message and returns its length: `struct cmsghdr`, then `struct sctp_sndinfo` of linux/sctp.h: sid, flags, ppid, context, assoc_id.
    fn write(&self, association: u32, control: &mut Control) -> usize {
        let flag = |on: bool, bit: i32| if on { bit } else { 0 };
        let flags = flag(self.unordered, uapi::SCTP_UNORDERED)
            | flag(self.eof, uapi::SCTP_EOF)
            | flag(self.abort, uapi::SCTP_ABORT);
        let bytes = &mut control.0;
        bytes[..8].copy_from_slice(&SNDINFO.to_ne_bytes());
        bytes[8..12].copy_from_slice(&libc::IPPROTO_SCTP.to_ne_bytes());
        bytes[12..16].copy_from_slice(&uapi::SCTP_SNDINFO.to_ne_bytes());
        bytes[16..18].copy_from_slice(&self.stream.to_ne_bytes());
        bytes[18..20].copy_from_slice(&(flags as u16).to_ne_bytes());
        bytes[20..24].copy_from_slice(&self.ppid.to_be_bytes());
        bytes[24..28].copy_from_slice(&self.context.to_ne_bytes());
        bytes[28..32].copy_from_slice(&association.to_ne_bytes());
        SNDINFO
    }
}
