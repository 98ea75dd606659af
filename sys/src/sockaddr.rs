//! Socket addresses as the kernel writes them: `struct sockaddr_in`, `struct sockaddr_in6`, field by field, so that no struct of
//! libc's needs to be reinterpreted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// `sizeof(struct sockaddr_in)`, `sizeof(struct sockaddr_in6)`.
const V4: usize = size_of::<libc::sockaddr_in>();
const V6: usize = size_of::<libc::sockaddr_in6>();

/// Room for either address, aligned as the kernel's structs are.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(crate) struct Name {
    bytes: [u8; 32],
    /// Bytes in use.
    len: u8,
}

impl Name {
    /// Bytes of room.
    pub const ROOM: usize = 32;
    pub const EMPTY: Name = Name { bytes: [0; Name::ROOM], len: 0 };

    pub fn new(address: SocketAddr) -> Name {
        let mut name = Name::EMPTY;
        name.set(address);
        name
    }

    pub fn set(&mut self, address: SocketAddr) {
        let b = &mut self.bytes;
        b[2..4].copy_from_slice(&address.port().to_be_bytes());
        match address {
            SocketAddr::V4(v4) => {
                b[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
                b[4..8].copy_from_slice(&v4.ip().octets());
                b[8..V4].fill(0);
                self.len = V4 as u8;
            }
            SocketAddr::V6(v6) => {
                b[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
                b[4..8].copy_from_slice(&v6.flowinfo().to_ne_bytes());
                b[8..24].copy_from_slice(&v6.ip().octets());
                b[24..V6].copy_from_slice(&v6.scope_id().to_ne_bytes());
                self.len = V6 as u8;
            }
        }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// For the kernel to write into: `Name::ROOM` bytes.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.bytes.as_mut_ptr()
    }

    /// What the kernel wrote, `len` bytes by its word.
    pub fn read(&self, len: usize) -> Option<SocketAddr> {
        read(self.bytes.get(..len)?).map(|(address, _)| address)
    }
}

/// The address at the beginning of `bytes`, and how long its struct is. None: no address of IPv4 or IPv6.
pub(crate) fn read(bytes: &[u8]) -> Option<(SocketAddr, usize)> {
    let family = i32::from(u16::from_ne_bytes(*bytes.first_chunk()?));
    let port = u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
    match family {
        libc::AF_INET => {
            let ip: [u8; 4] = *bytes.get(4..V4)?.first_chunk()?;
            Some((SocketAddrV4::new(Ipv4Addr::from(ip), port).into(), V4))
        }
        libc::AF_INET6 => {
            let flow = u32::from_ne_bytes(*bytes.get(4..V6)?.first_chunk()?);
            let ip: [u8; 16] = *bytes.get(8..V6)?.first_chunk()?;
            let scope = u32::from_ne_bytes(*bytes.get(24..V6)?.first_chunk()?);
            let ip = Ipv6Addr::from(ip);
            // An association over IPv4 of an IPv6 socket is IPv4 to us, whatever the socket was told.
            let address = match ip.to_ipv4_mapped() {
                Some(v4) => SocketAddr::new(IpAddr::V4(v4), port),
                None => SocketAddrV6::new(ip, port, flow, scope).into(),
            };
            Some((address, V6))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_comes_back_as_it_went_in() {
        for text in ["127.0.0.1:5060", "[::1]:5061", "[fe80::1%3]:5060"] {
            let address: SocketAddr = text.parse().unwrap();
            let name = Name::new(address);
            assert_eq!(name.read(name.as_bytes().len()), Some(address));
        }
    }

    #[test]
    fn a_shorter_address_leaves_nothing_of_a_longer_one() {
        let mut name = Name::new("[::1%9]:1".parse().unwrap());
        name.set("1.2.3.4:5".parse().unwrap());
        assert_eq!(name.as_bytes(), Name::new("1.2.3.4:5".parse().unwrap()).as_bytes());
    }

    #[test]
    fn other_families_and_cut_addresses_are_none() {
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[0; 128]), None);
        let v6 = Name::new("[::1]:5061".parse().unwrap());
        assert_eq!(read(&v6.as_bytes()[..27]), None);
    }
}
