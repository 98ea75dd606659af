//! User agents, small but honest: they repeat what an RFC 3261 user agent repeats over UDP, and nothing over SCTP.

use strowger::timer::Tick;

const T1: u64 = 500;
const T2: u64 = 4_000;

/// Something an agent sends until it is answered.
#[derive(Clone, Debug)]
pub struct Repeating {
    pub text: String,
    pub next: Tick,
    interval: u64,
    cap: u64,
    give_up: Tick,
}

impl Repeating {
    /// Over a reliable transport it is sent once; but a 2xx is repeated over any (RFC 3261 §13.3.1.4).
    pub fn new(text: String, now: Tick, reliable: bool, cap: u64) -> Repeating {
        let next = if reliable { Tick::NEVER } else { now + T1 };
        Repeating { text, next, interval: T1, cap, give_up: now + 64 * T1 }
    }

    /// The text, if it is to be sent again now.
    pub fn due(&mut self, now: Tick) -> Option<String> {
        if self.next > now || now >= self.give_up {
            return None;
        }
        self.interval = (self.interval * 2).min(self.cap);
        self.next = now + self.interval;
        Some(self.text.clone())
    }
}

/// What the callee does with an INVITE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    Answer,
    Reject(u16),
    /// Rings until it is cancelled.
    Ring,
}

#[derive(Debug)]
pub struct Caller {
    pub call_id: String,
    pub plan: Plan,
    pub invite: Option<Repeating>,
    pub bye: Option<Repeating>,
    pub cancel: Option<Repeating>,
    pub provisional: bool,
    /// Final response to the INVITE, and to the BYE.
    pub answer: Option<u16>,
    pub bye_answer: Option<u16>,
    ack: Option<String>,
    address: &'static str,
    via: &'static str,
    reliable: bool,
}

pub fn header<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

pub fn headers<'t>(text: &'t str, name: &'t str) -> impl Iterator<Item = &'t str> {
    text.lines().filter_map(move |line| line.strip_prefix(name)?.strip_prefix(": "))
}

impl Caller {
    pub fn new(number: usize, plan: Plan, address: &'static str, via: &'static str) -> Caller {
        Caller {
            call_id: format!("call-{number}"),
            plan,
            invite: None,
            bye: None,
            cancel: None,
            provisional: false,
            answer: None,
            bye_answer: None,
            ack: None,
            address,
            via,
            reliable: via != "UDP",
        }
    }

    fn request(&self, method: &str, uri: &str, branch: &str, cseq: u32, more: &str, to_tag: &str) -> String {
        let Caller { call_id, address, via, .. } = self;
        format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/{via} {address};branch=z9hG4bK-{call_id}-{branch}\r\nMax-Forwards: 70\r\n\
             {more}From: <sip:a@{address}>;tag=a-{call_id}\r\nTo: <sip:z@example.test>{to_tag}\r\nCall-ID: {call_id}\r\n\
             CSeq: {cseq} {method}\r\nContact: <sip:a@{address}>\r\nContent-Length: 0\r\n\r\n"
        )
    }

    pub fn start(&mut self, uri: &str, now: Tick) -> String {
        let text = self.request("INVITE", uri, "invite", 1, "", "");
        self.invite = Some(Repeating::new(text.clone(), now, self.reliable, u64::MAX));
        text
    }

    pub fn give_up(&mut self, uri: &str, now: Tick) -> Option<String> {
        if self.answer.is_some() || !self.provisional || self.cancel.is_some() {
            return None;
        }
        let text = self.request("CANCEL", uri, "invite", 1, "", "");
        self.cancel = Some(Repeating::new(text.clone(), now, self.reliable, T2));
        Some(text)
    }

    /// What it sends on a response.
    pub fn response(&mut self, text: &str, uri: &str, now: Tick) -> Vec<String> {
        let code: u16 = text.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        match header(text, "CSeq").and_then(|cseq| cseq.split(' ').nth(1)) {
            Some("INVITE") => {
                self.invite = None;
                match code {
                    100..=199 => {
                        self.provisional = true;
                        Vec::new()
                    }
                    200..=299 => self.answered(text, code, now),
                    _ => {
                        self.answer.get_or_insert(code);
                        let to = header(text, "To").and_then(|to| to.split_once(";tag=")).map_or("", |(_, tag)| tag);
                        vec![self.request("ACK", uri, "invite", 1, "", &format!(";tag={to}"))]
                    }
                }
            }
            Some("BYE") if code >= 200 => {
                self.bye = None;
                self.bye_answer.get_or_insert(code);
                Vec::new()
            }
            Some("CANCEL") => {
                if let Some(cancel) = &mut self.cancel {
                    cancel.next = Tick::NEVER;
                }
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    /// A 2xx: acknowledged each time it comes; the first time the call is then ended.
    fn answered(&mut self, text: &str, code: u16, now: Tick) -> Vec<String> {
        self.answer.get_or_insert(code);
        if let Some(ack) = &self.ack {
            return vec![ack.clone()];
        }
        let contact = header(text, "Contact").unwrap_or("").trim_matches(['<', '>']).to_owned();
        let routes: Vec<&str> = headers(text, "Record-Route").collect();
        let routes: String = routes.iter().rev().map(|route| format!("Route: {route}\r\n")).collect();
        let tag = header(text, "To").and_then(|to| to.split_once(";tag=")).map_or("", |(_, tag)| tag).to_owned();
        let tag = format!(";tag={tag}");
        let ack = self.request("ACK", &contact, "ack", 1, &routes, &tag);
        self.ack = Some(ack.clone());
        let bye = self.request("BYE", &contact, "bye", 2, &routes, &tag);
        self.bye = Some(Repeating::new(bye.clone(), now, self.reliable, T2));
        vec![ack, bye]
    }

    pub fn due(&mut self, now: Tick) -> Vec<String> {
        [&mut self.invite, &mut self.bye, &mut self.cancel].into_iter().flatten().filter_map(|r| r.due(now)).collect()
    }
}

/// The callee: one side of one call.
#[derive(Debug)]
pub struct Callee {
    invite: String,
    pub plan: Plan,
    pub answer_at: Tick,
    pub final_response: Option<Repeating>,
    pub acknowledged: bool,
    pub cancels: u32,
    pub ended: bool,
    address: &'static str,
    reliable: bool,
}

/// A response to a request, as a user agent server makes it.
pub fn reply(request: &str, code: u16, reason: &str, contact: &str) -> String {
    let mut text = format!("SIP/2.0 {code} {reason}\r\n");
    for name in ["Via", "Record-Route", "From", "To", "Call-ID", "CSeq"] {
        for value in headers(request, name) {
            let tag = if name == "To" && code > 100 && !value.contains(";tag=") { ";tag=z" } else { "" };
            text += &format!("{name}: {value}{tag}\r\n");
        }
    }
    text + &format!("Contact: <{contact}>\r\nContent-Length: 0\r\n\r\n")
}

impl Callee {
    pub fn new(invite: &str, plan: Plan, answer_at: Tick, address: &'static str, reliable: bool) -> Callee {
        Callee {
            invite: invite.to_owned(),
            plan,
            answer_at,
            final_response: None,
            acknowledged: false,
            cancels: 0,
            ended: false,
            address,
            reliable,
        }
    }

    pub fn ringing(&self) -> String {
        reply(&self.invite, 180, "Ringing", self.address)
    }

    /// A CANCEL came: the answers to it and to the INVITE.
    pub fn cancel(&mut self, cancel: &str, now: Tick) -> Vec<String> {
        let mut out = vec![reply(cancel, 200, "OK", self.address)];
        self.cancels += 1;
        if self.final_response.is_none() {
            out.push(self.finish(487, now));
        }
        out
    }

    fn finish(&mut self, code: u16, now: Tick) -> String {
        let text = reply(&self.invite, code, "Final", self.address);
        let once = self.reliable && code >= 300;
        self.final_response = Some(Repeating::new(text.clone(), now, once, T2));
        text
    }

    pub fn due(&mut self, now: Tick) -> Option<String> {
        if self.acknowledged {
            return None;
        }
        if let Some(response) = &mut self.final_response {
            return response.due(now);
        }
        match self.plan {
            Plan::Answer if self.answer_at <= now => Some(self.finish(200, now)),
            Plan::Reject(code) if self.answer_at <= now => Some(self.finish(code, now)),
            _ => None,
        }
    }
}
