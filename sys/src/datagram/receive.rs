//! `recvmmsg(2)`.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};

use super::{Arena, CMSG_ALIGN, CMSG_HEADER};
use crate::sctp::uapi;
use crate::sockaddr::Name;
use crate::syscall::uninterrupted;

/// Room for the control messages of one message: SCTP_RCVINFO is 28 bytes and a header, IPV6_PKTINFO 20; the rest is spare.
const CONTROL: usize = 128;

/// The control messages of one message, aligned as `struct cmsghdr` wants.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

/// Receives up to `max` messages with one system call. All arrays are allocated once.
pub struct Receiver {
    headers: Box<[libc::mmsghdr]>,
    buffers: Box<[libc::iovec]>,
    names: Box<[Name]>,
    controls: Box<[Control]>,
    /// What the last call filled.
    first_slot: usize,
    received: usize,
    /// The buffer that the first header points to, and how large each is: what these headers are made for.
    made_for: (usize, usize),
    /// So many headers are made, and so many of them the last call may have written to.
    made: usize,
    touched: usize,
}

// SAFETY: the pointers in `headers` and `buffers` go to this value's own arrays, and into an arena that `receive` is given, for the
// call only: another one at the same address has the same buffers there.
unsafe impl Send for Receiver {}

/// One message of the last batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// The arena's buffer it lies in, from its start.
    pub slot: usize,
    /// Bytes that were written there.
    pub len: usize,
    /// Where it came from. SCTP: the path used, which may change; the association is in `info` (M42). A notification has none.
    pub peer: Option<SocketAddr>,
    /// MSG_EOR: the message ends here. SCTP only; a piece without it is not a whole message (M11, M13).
    pub end_of_record: bool,
    /// MSG_TRUNC: UDP, the message was longer than the buffer and the rest is gone.
    pub truncated: bool,
    /// MSG_NOTIFICATION: not from a peer; for `sctp::parse_notification`.
    pub notification: bool,
    /// SCTP, messages of peers only.
    pub info: Option<RcvInfo>,
    /// UDP sockets on a wildcard only: our address that it came to, to answer from.
    pub own: Option<IpAddr>,
}

/// SCTP_RCVINFO, RFC 6458 §5.3.5.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RcvInfo {
    pub stream: u16,
    pub stream_sequence: u16,
    pub unordered: bool,
    /// In host order (the kernel passes on what the peer wrote; peers write network order).
    pub ppid: u32,
    pub tsn: u32,
    pub association: u32,
}

impl Receiver {
    /// For batches of at most `max` messages (the kernel takes 1024).
    #[must_use]
    pub fn new(max: usize) -> Receiver {
        let max = max.clamp(1, 1024);
        // SAFETY: these C structs are integers and pointers, for which zero is a valid value.
        let (header, buffer) = unsafe { (std::mem::zeroed::<libc::mmsghdr>(), std::mem::zeroed::<libc::iovec>()) };
        Receiver {
            headers: vec![header; max].into(),
            buffers: vec![buffer; max].into(),
            names: vec![Name::EMPTY; max].into(),
            controls: vec![Control([0; CONTROL]); max].into(),
            first_slot: 0,
            received: 0,
            made_for: (0, 0),
            made: 0,
            touched: 0,
        }
    }

    /// Reads at most `max` messages that are there now into the arena's buffers `first_slot`, `first_slot + 1`, ...; returns how
    /// many (0: none there, or no buffer left). Never waits. See [`Receiver::get`] for each.
    ///
    /// # Errors
    /// What `recvmmsg(2)` says, EAGAIN and EINTR excepted.
    pub fn receive(
        &mut self,
        fd: BorrowedFd<'_>,
        arena: &mut Arena,
        first_slot: usize,
        max: usize,
    ) -> io::Result<usize> {
        self.first_slot = first_slot;
        self.received = 0;
        let max = max.min(self.headers.len()).min(arena.slots().saturating_sub(first_slot));
        if max == 0 {
            return Ok(0);
        }
        // A call that brings one message shall not cost the making of all headers.
        let made_for = (arena.slot(first_slot).as_ptr().addr(), arena.slot_bytes());
        if self.made_for != made_for {
            (self.made_for, self.made) = (made_for, 0);
        }
        if self.touched > max {
            self.made = self.made.min(max);
        }
        self.make(arena, first_slot, 0..self.touched.min(self.made).min(max));
        self.make(arena, first_slot, self.made..max);
        self.made = self.made.max(max);
        let (headers, n) = (self.headers.as_mut_ptr(), max as libc::c_uint);
        let flags = libc::MSG_DONTWAIT;
        let received = uninterrupted(|| {
            // SAFETY: the first `max` headers are made for these very buffers of the arena (same address and size; borrowed for writing, no
            // two the same): each points to a name, a buffer and control room, all of the lengths given and alive for the call. No
            // time-out is passed.
            unsafe { syscall!(recvmmsg(fd.as_raw_fd(), headers, n, flags, std::ptr::null_mut())) }
        });
        self.received = match received {
            Ok(n) => n.unsigned_abs() as usize,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => 0,
            Err(e) => {
                self.touched = max;
                return Err(e);
            }
        };
        // One more: it may have been begun.
        self.touched = self.received + 1;
        Ok(self.received)
    }

    /// Points these headers at their names, buffers and control room.
    fn make(&mut self, arena: &mut Arena, first_slot: usize, which: std::ops::Range<usize>) {
        let arrays = self.headers.iter_mut().zip(&mut self.buffers).zip(&mut self.names).zip(&mut self.controls);
        for (i, (((header, buffer), name), control)) in arrays.enumerate().take(which.end).skip(which.start) {
            let slot = arena.slot_mut(first_slot + i);
            buffer.iov_base = slot.as_mut_ptr().cast();
            buffer.iov_len = slot.len();
            header.msg_len = 0;
            let header = &mut header.msg_hdr;
            header.msg_name = name.as_mut_ptr().cast();
            header.msg_namelen = Name::ROOM as libc::socklen_t;
            header.msg_iov = buffer;
            header.msg_iovlen = 1;
            header.msg_control = control.0.as_mut_ptr().cast();
            header.msg_controllen = CONTROL;
            header.msg_flags = 0;
        }
    }

    /// Message `i` of the last batch; an empty one when there is no such message.
    #[must_use]
    pub fn get(&self, i: usize) -> Received {
        let slot = self.first_slot + i;
        let nothing = Received {
            slot,
            len: 0,
            peer: None,
            end_of_record: false,
            truncated: false,
            notification: false,
            info: None,
            own: None,
        };
        if i >= self.received {
            return nothing;
        }
        let (Some(header), Some(name), Some(control)) = (self.headers.get(i), self.names.get(i), self.controls.get(i))
        else {
            return nothing;
        };
        let flags = header.msg_hdr.msg_flags;
        let control = control.0.get(..header.msg_hdr.msg_controllen).unwrap_or_default();
        Received {
            slot,
            len: header.msg_len as usize,
            peer: name.read(header.msg_hdr.msg_namelen as usize),
            end_of_record: flags & libc::MSG_EOR != 0,
            truncated: flags & libc::MSG_TRUNC != 0,
            notification: flags & uapi::MSG_NOTIFICATION != 0,
            info: rcv_info(control),
            own: own_address(control),
        }
    }
}

fn rcv_info(control: &[u8]) -> Option<RcvInfo> {
    RcvInfo::read(find(control, libc::IPPROTO_SCTP, uapi::SCTP_RCVINFO)?)
}

/// `struct in_pktinfo`: interface, the address to answer from, the one in the packet (which may be a broadcast). `struct in6_pktinfo`:
/// the one in the packet, interface.
fn own_address(control: &[u8]) -> Option<IpAddr> {
    let v4 = || Some(IpAddr::from(*find(control, libc::IPPROTO_IP, libc::IP_PKTINFO)?.get(4..)?.first_chunk::<4>()?));
    let v6 = || Some(IpAddr::from(*find(control, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO)?.first_chunk::<16>()?));
    v4().or_else(v6).filter(|ip| !ip.is_unspecified() && !ip.is_multicast())
}

/// The data of one of the control messages that the kernel wrote.
fn find(mut control: &[u8], level: i32, kind: i32) -> Option<&[u8]> {
    loop {
        let len = usize::from_ne_bytes(*control.first_chunk()?);
        let its_level = i32::from_ne_bytes(*control.get(8..)?.first_chunk()?);
        let its_kind = i32::from_ne_bytes(*control.get(12..)?.first_chunk()?);
        let data = control.get(CMSG_HEADER..len)?;
        if (its_level, its_kind) == (level, kind) {
            return Some(data);
        }
        control = control.get(len.checked_next_multiple_of(CMSG_ALIGN)?..)?;
    }
}

impl RcvInfo {
    /// `struct sctp_rcvinfo` of linux/sctp.h: sid, ssn, flags (16 bits each, then 16 unused), ppid, tsn, cumtsn, context, assoc_id.
    fn read(data: &[u8]) -> Option<RcvInfo> {
        let short = |at: usize| Some(u16::from_ne_bytes(*data.get(at..)?.first_chunk()?));
        let long = |at: usize| Some(u32::from_ne_bytes(*data.get(at..)?.first_chunk()?));
        Some(RcvInfo {
            stream: short(0)?,
            stream_sequence: short(2)?,
            unordered: i32::from(short(4)?) & uapi::SCTP_UNORDERED != 0,
            ppid: u32::from_be(long(8)?),
            tsn: long(12)?,
            association: long(24)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(len: usize, level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
        let mut bytes = [&len.to_ne_bytes()[..], &level.to_ne_bytes(), &kind.to_ne_bytes(), data].concat();
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    #[test]
    fn rcvinfo_is_found_behind_other_control_messages() {
        let mut data = [0; 28];
        data[0] = 3;
        data[8..12].copy_from_slice(&46u32.to_be_bytes());
        data[24..].copy_from_slice(&77u32.to_ne_bytes());
        let other = control(17, libc::SOL_SOCKET, 1, &[1]);
        let ours = control(16 + 28, libc::IPPROTO_SCTP, uapi::SCTP_RCVINFO, &data);
        let found = rcv_info(&[other, ours].concat()).unwrap();
        assert_eq!((found.stream, found.ppid, found.association, found.unordered), (3, 46, 77, false));
    }

    #[test]
    fn an_address_to_answer_from_is_one_of_ours() {
        let v4 = |own: [u8; 4]| control(28, libc::IPPROTO_IP, libc::IP_PKTINFO, &[[1, 0, 0, 0], own, [9; 4]].concat());
        let v6 =
            |own: [u8; 16]| control(36, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &[&own[..], &[1, 0, 0, 0]].concat());
        assert_eq!(own_address(&v4([127, 0, 0, 2])), Some([127, 0, 0, 2].into()));
        let mut six = [0; 16];
        six[15] = 1;
        assert_eq!(own_address(&v6(six)), Some(six.into()));
        six[0] = 0xff;
        for nothing in [v4([0; 4]), v4([224, 0, 1, 75]), v6([0; 16]), v6(six), v6([1; 16])[..30].to_vec(), vec![]] {
            assert_eq!(own_address(&nothing), None, "{nothing:?}");
        }
    }

    #[test]
    fn lying_lengths_end_the_search() {
        for len in [0, 1, 15, 44 + 8, usize::MAX] {
            let bytes = control(len, libc::IPPROTO_SCTP, uapi::SCTP_RCVINFO, &[0; 28]);
            assert_eq!(rcv_info(&bytes), None, "{len}");
        }
        assert_eq!(rcv_info(&control(20, libc::IPPROTO_SCTP, uapi::SCTP_RCVINFO, &[0; 4])), None);
        assert_eq!(rcv_info(&[]), None);
    }
}
