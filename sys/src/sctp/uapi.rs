//! Names and numbers of `linux/sctp.h` and `linux/socket.h` that libc does not export.

pub(crate) const MSG_NOTIFICATION: i32 = 0x8000;

pub(crate) const SCTP_RTOINFO: i32 = 0;
pub(crate) const SCTP_ASSOCINFO: i32 = 1;
pub(crate) const SCTP_INITMSG: i32 = 2;
pub(crate) const SCTP_NODELAY: i32 = 3;
pub(crate) const SCTP_AUTOCLOSE: i32 = 4;
pub(crate) const SCTP_PRIMARY_ADDR: i32 = 6;
pub(crate) const SCTP_PEER_ADDR_PARAMS: i32 = 9;
pub(crate) const SCTP_I_WANT_MAPPED_V4_ADDR: i32 = 12;
pub(crate) const SCTP_STATUS: i32 = 14;
pub(crate) const SCTP_GET_PEER_ADDR_INFO: i32 = 15;
/// Of old SCTP_DELAYED_ACK_TIME.
pub(crate) const SCTP_DELAYED_SACK: i32 = 16;
pub(crate) const SCTP_FRAGMENT_INTERLEAVE: i32 = 18;
pub(crate) const SCTP_MAX_BURST: i32 = 20;
pub(crate) const SCTP_GET_ASSOC_NUMBER: i32 = 28;
pub(crate) const SCTP_GET_ASSOC_ID_LIST: i32 = 29;
pub(crate) const SCTP_RECVRCVINFO: i32 = 32;
pub(crate) const SCTP_SOCKOPT_BINDX_ADD: i32 = 100;
pub(crate) const SCTP_GET_PEER_ADDRS: i32 = 108;
pub(crate) const SCTP_GET_ASSOC_STATS: i32 = 112;
pub(crate) const SCTP_DEFAULT_PRINFO: i32 = 114;
pub(crate) const SCTP_EVENT: i32 = 127;
pub(crate) const SCTP_REMOTE_UDP_ENCAPS_PORT: i32 = 132;

/// Control messages: `enum sctp_cmsg_type`.
pub(crate) const SCTP_SNDINFO: i32 = 2;
pub(crate) const SCTP_RCVINFO: i32 = 3;

/// Flags of sndinfo and rcvinfo: `enum sctp_sinfo_flags`.
pub(crate) const SCTP_UNORDERED: i32 = 1;
pub(crate) const SCTP_ABORT: i32 = 4;
/// MSG_FIN.
pub(crate) const SCTP_EOF: i32 = 0x200;

/// Policies of partial reliability: `pr_policy`.
pub(crate) const SCTP_PR_SCTP_TTL: u16 = 0x10;

/// Flags of paddrparams: `enum sctp_spp_flags`.
pub(crate) const SPP_HB_ENABLE: u32 = 1;
pub(crate) const SPP_HB_DEMAND: u32 = 4;

/// Notifications: `enum sctp_sn_type`.
pub(crate) const SCTP_ASSOC_CHANGE: u16 = 0x8001;
pub(crate) const SCTP_PEER_ADDR_CHANGE: u16 = 0x8002;
pub(crate) const SCTP_SHUTDOWN_EVENT: u16 = 0x8005;
pub(crate) const SCTP_PARTIAL_DELIVERY_EVENT: u16 = 0x8006;
pub(crate) const SCTP_SEND_FAILED_EVENT: u16 = 0x800d;
