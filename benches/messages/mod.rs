//! The three messages that are measured, and what is done to them, for the benchmark and for the test that nothing is allocated.

use strowger::message::branch::{self, BranchId, Key};
use strowger::message::{RequestEdit, ViaFix, forward_request, forward_response, scan};

const KEY: Key = Key([0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908]);

const BODY: &str = "v=0\r\no=a 2890844526 2890844526 IN IP4 192.0.2.101\r\ns=-\r\nc=IN IP4 192.0.2.101\r\nt=0 0\r\n\
    m=audio 49172 RTP/AVP 0 8\r\na=rtpmap:0 PCMU/8000\r\n";

pub fn invite() -> String {
    format!(
        "INVITE sip:z@strowger.example.test SIP/2.0\r\n\
         Via: SIP/2.0/SCTP 192.0.2.101:5060;branch=z9hG4bK74bf9aa21c55;rport\r\n\
         Max-Forwards: 70\r\n\
         From: \"Almon\" <sip:a@example.test>;tag=9fxced76sl\r\n\
         To: <sip:z@example.test>\r\n\
         Call-ID: 3848276298220188511@192.0.2.101\r\n\
         CSeq: 1 INVITE\r\n\
         Contact: <sip:a@192.0.2.101:5060;transport=sctp>\r\n\
         Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE\r\n\
         Supported: replaces, timer\r\n\
         User-Agent: Exchange/1.0 (step by step)\r\n\
         P-Asserted-Identity: <sip:a@example.test>\r\n\
         Session-Expires: 1800\r\n\
         Content-Type: application/sdp\r\n\
         Content-Length: {}\r\n\r\n{BODY}",
        BODY.len()
    )
}

pub fn ok() -> String {
    format!(
        "SIP/2.0 200 OK\r\n\
         Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK0000002a00000007.5f3a9c11.0123456789abcdef\r\n\
         Via: SIP/2.0/SCTP 192.0.2.101:5060;branch=z9hG4bK74bf9aa21c55;received=192.0.2.101;rport=5060\r\n\
         Record-Route: <sip:192.0.2.1;lr>, <sip:192.0.2.1;transport=sctp;lr>\r\n\
         From: \"Almon\" <sip:a@example.test>;tag=9fxced76sl\r\n\
         To: <sip:z@example.test>;tag=314159\r\n\
         Call-ID: 3848276298220188511@192.0.2.101\r\n\
         CSeq: 1 INVITE\r\n\
         Contact: <sip:z@192.0.2.201:5060>\r\n\
         Content-Type: application/sdp\r\n\
         Content-Length: {}\r\n\r\n{BODY}",
        BODY.len()
    )
}

pub fn ack() -> String {
    "ACK sip:z@192.0.2.201:5060 SIP/2.0\r\n\
     Via: SIP/2.0/SCTP 192.0.2.101:5060;branch=z9hG4bK74bf9aa21c99;rport\r\n\
     Route: <sip:192.0.2.1;transport=sctp;lr>, <sip:192.0.2.1;lr>\r\n\
     Max-Forwards: 70\r\n\
     From: \"Almon\" <sip:a@example.test>;tag=9fxced76sl\r\n\
     To: <sip:z@example.test>;tag=314159\r\n\
     Call-ID: 3848276298220188511@192.0.2.101\r\n\
     CSeq: 1 ACK\r\n\
     Content-Length: 0\r\n\r\n"
        .to_owned()
}

/// Everything this room does for a request: scan, key of the server transaction, our branch, splice.
pub fn forward(text: &[u8], cut_routes: u16, via: &mut Vec<u8>, out: &mut Vec<u8>) -> u128 {
    let Ok(m) = scan(text) else { return 0 };
    let key = branch::transaction_key(&KEY, &m);
    via.clear();
    via.extend_from_slice(b"Via: SIP/2.0/UDP 192.0.2.1:5060;branch=");
    branch::write(via, &KEY, BranchId { slot: 42, generation: 7 }, 0x5f3a_9c11, m.of(m.via.branch));
    via.extend_from_slice(b"\r\n");
    out.clear();
    let edit = RequestEdit {
        uri: (cut_routes == 0).then_some(b"sip:z@192.0.2.201:5060"),
        via,
        fix_via: ViaFix::needed(&m.via, m.bytes, ([192, 0, 2, 101], 5060).into()),
        record_route: b"Record-Route: <sip:192.0.2.1;lr>, <sip:192.0.2.1;transport=sctp;lr>\r\n",
        max_forwards: 69,
        cut_routes,
        strict_route: None,
    };
    forward_request(&m, &edit, out);
    key
}

/// Everything this room does for a response: scan, our branch checked, splice.
pub fn respond(text: &[u8], out: &mut Vec<u8>) -> bool {
    let Ok(m) = scan(text) else { return false };
    let upstream = m.next_via.map(|via| m.of(via.branch)).unwrap_or_default();
    let ours = branch::read(m.of(m.via.branch)).is_some_and(|ours| ours.verify(&KEY, upstream));
    out.clear();
    forward_response(&m, out);
    ours
}
