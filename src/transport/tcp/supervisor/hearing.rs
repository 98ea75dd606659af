//! The supervisor's side of `ipc`: what the other processes tell it and ask of it, and what it answers.
//!
//! Owns: the order of it. Every note is worked off at once; an answer that there is no room for waits in its line's list.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use mio::net::TcpStream;
use mio::{Interest, Token};
use sys::passing::Wait;

use super::LINES;
use super::holder::{Line, Supervisor, WAITING};
use super::ipc::{self, Note, Word};
use super::reader::let_go;
use crate::shared::counters::Counter;
use crate::timer::Tick;
use crate::transport::desk::Desk;
use crate::transport::transports::CONNECTIONS;
use crate::transport::{FlowId, Inbox};

/// Notes read from one process in one go.
const BATCH: usize = 64;

impl Supervisor {
    /// A process has something to say, or room to hear; or a returned connection is readable.
    pub fn receive(&mut self, desk: &mut Desk, token: usize, inbox: &mut Inbox, now: Tick) -> bool {
        let Some(line) = token.checked_sub(LINES) else {
            // Not where an event of a connection that is over meets another one in its slot.
            if self.held.get(token).is_some_and(|held| held.watched) {
                self.assign(desk, token, inbox, now);
            }
            return false;
        };
        let seat = line / 2;
        self.say_what_waits(seat);
        let Some(Line { asks, news, .. }) = self.lines.get(seat) else { return false };
        let end = if line % 2 == 0 { *asks } else { *news };
        for _ in 0..BATCH {
            match ipc::hear(end, Wait::No) {
                Ok((note, descriptor)) => self.heard(desk, seat, note, descriptor, inbox, now),
                Err(e) if e.kind() == io::ErrorKind::InvalidData => {}
                Err(_) => return false,
            }
        }
        true
    }

    fn heard(
        &mut self,
        desk: &Desk,
        seat: usize,
        note: Note,
        descriptor: Option<OwnedFd>,
        inbox: &mut Inbox,
        now: Tick,
    ) {
        match note.word {
            Word::Get => self.asked(desk, seat, note),
            Word::New => self.opened(desk, note.id, descriptor, inbox, now),
            Word::Bad => {
                self.end(desk, note.id, inbox);
                self.answer_parked(desk);
            }
            Word::Ended => self.end(desk, note.id, inbox),
            Word::Return => self.returned(desk, note.id, inbox),
            Word::Hello => self.sweep(desk, seat, inbox),
            Word::Here | Word::Gone | Word::Own => {}
        }
    }

    fn asked(&mut self, desk: &Desk, seat: usize, question: Note) {
        let is_held = self.by_id.contains_key(&question.id);
        // Being opened, or open and its opener's word of it not read yet.
        let is_coming = || desk.parts.flows.find(question.id).is_some();
        let Some(line) = self.lines.get_mut(seat) else { return };
        if !is_held && is_coming() {
            line.parked = Some(question);
            return;
        }
        if line.answers.len() >= WAITING {
            // Those who asked have given up.
            line.answers.pop_front();
        }
        line.answers.push_back(question);
        self.say_what_waits(seat);
    }

    /// A process opened a connection.
    fn opened(&mut self, desk: &Desk, id: FlowId, descriptor: Option<OwnedFd>, inbox: &mut Inbox, now: Tick) {
        // Meanwhile it may have ended.
        if desk.parts.flows.find(id).is_none() {
            return;
        }
        let Some(descriptor) = descriptor else {
            // No room for it in this process.
            desk.count(Counter::SocketErrors, 1);
            let_go(desk, id, inbox);
            return;
        };
        self.hold(desk, id, TcpStream::from_std(descriptor.into()), inbox, now);
        self.answer_parked(desk);
    }

    /// Questions for connections that are open by now, or have failed.
    pub(super) fn answer_parked(&mut self, desk: &Desk) {
        for seat in 0..self.lines.len() {
            if let Some(question) = self.lines.get_mut(seat).and_then(|line| line.parked.take()) {
                self.asked(desk, seat, question);
            }
        }
    }

    /// Its owner found it idle: we close it later, or another worker gets it when its peer sends.
    fn returned(&mut self, desk: &Desk, id: FlowId, inbox: &mut Inbox) {
        let Some(slot) = self.by_id.get(&id).copied() else { return };
        let is_ours = desk.parts.flows.find(id).is_some_and(|flow| flow.owner == desk.seat);
        let Some(held) = self.held.get_mut(slot) else { return };
        let token = Token(CONNECTIONS + slot);
        let watched = is_ours && self.registry.register(&mut held.stream, token, Interest::READABLE).is_ok();
        (held.owner, held.watched) = (desk.seat, watched);
        if !watched {
            self.end(desk, id, inbox);
        }
    }

    /// A successor sits there: what its predecessor owned is gone, and what it was about to return has come back.
    fn sweep(&mut self, desk: &Desk, seat: usize, inbox: &mut Inbox) {
        let its = self.held.iter().filter(|(_, held)| held.owner == seat).map(|(_, held)| held.id);
        let its: Vec<FlowId> = its.collect();
        for id in its {
            match desk.parts.flows.find(id) {
                None => self.end(desk, id, inbox),
                Some(flow) if flow.owner == desk.seat => self.returned(desk, id, inbox),
                Some(_) => {}
            }
        }
    }

    /// Says what there is room for.
    pub(super) fn say_what_waits(&mut self, seat: usize) {
        let Supervisor { lines, held, by_id, .. } = self;
        let Some(Line { asks, news, answers, assignments, .. }) = lines.get_mut(seat) else { return };
        let find = |id: FlowId| held.get(*by_id.get(&id)?);
        while let Some(question) = answers.front() {
            let stream = find(question.id).map(|held| held.stream.as_fd());
            let word = if stream.is_some() { Word::Here } else { Word::Gone };
            if ipc::say(*asks, Note { word, ..*question }, stream, Wait::No).is_err() {
                break;
            }
            answers.pop_front();
        }
        while let Some(note) = assignments.front() {
            // It may have ended, or be another's.
            if let Some(held) = find(note.id).filter(|held| held.owner == seat)
                && ipc::say(*news, *note, Some(held.stream.as_fd()), Wait::No).is_err()
            {
                break;
            }
            assignments.pop_front();
        }
    }
}
