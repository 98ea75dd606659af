//! What the paper compared, and what we put beside it.
//!
//! Owns: the eight subjects, their names and the tables of their configuration. Never measures.

use crate::phone::bench::results::Subject;

/// A subject, as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Name {
    Udp,
    Supervisor,
    SupervisorCache,
    SupervisorCacheQueue,
    SingleOwner,
    Symmetric,
    SctpKernel,
    SctpUser,
}

impl Name {
    /// In the order of tables and legends.
    pub const ALL: [Name; 8] = [
        Name::Udp,
        Name::Supervisor,
        Name::SupervisorCache,
        Name::SupervisorCacheQueue,
        Name::SingleOwner,
        Name::Symmetric,
        Name::SctpKernel,
        Name::SctpUser,
    ];

    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Name::Udp => "UDP",
            Name::Supervisor => "TCP supervisor",
            Name::SupervisorCache => "TCP supervisor + cache",
            Name::SupervisorCacheQueue => "TCP supervisor + cache + queue",
            Name::SingleOwner => "TCP single_owner",
            Name::Symmetric => "TCP symmetric",
            Name::SctpKernel => "SCTP kernel",
            Name::SctpUser => "SCTP user",
        }
    }

    /// The subject that a text of `results.json` names. None: a foreign proxy's, or of another version.
    #[must_use]
    pub fn of(text: &str) -> Option<Name> {
        Name::ALL.into_iter().find(|name| name.text() == text)
    }

    /// What it is, in a sentence.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Name::Udp => "one socket that all workers read; no connections",
            Name::Supervisor => {
                "OpenSER as the paper found it: one process holds all connections, and a worker asks it for a descriptor \
                 before every message; idle connections are found by scanning all"
            }
            Name::SupervisorCache => "the same, and each worker keeps the descriptors that it was given",
            Name::SupervisorCacheQueue => "the same, and idle connections are found by deadline order",
            Name::SingleOwner => "one process holds every connection and hands whole messages to the workers",
            Name::Symmetric => {
                "each worker reads and writes the connections that it accepted; others post it their messages"
            }
            Name::SctpKernel => {
                "the kernel's SCTP: one socket that all workers read, and each sends on any association"
            }
            Name::SctpUser => "SCTP in user space, inside UDP (RFC 6951)",
        }
    }

    #[must_use]
    pub fn has_connections(self) -> bool {
        self != Name::Udp
    }

    #[must_use]
    pub fn has_supervisor(self) -> bool {
        matches!(self, Name::Supervisor | Name::SupervisorCache | Name::SupervisorCacheQueue)
    }

    #[must_use]
    pub fn is_sctp(self) -> bool {
        matches!(self, Name::SctpKernel | Name::SctpUser)
    }

    /// With this idle time-out on both sides of the supervisor: workers return a connection after it, the supervisor closes it after
    /// another one.
    #[must_use]
    pub fn subject(self, idle_s: u64) -> Subject {
        let supervisor =
            |more: &str| format!("[tcp]\narchitecture = \"supervisor\"\nsupervisor_idle_s = {idle_s}\n{more}");
        let (transport, tables) = match self {
            Name::Udp => ("udp", String::new()),
            Name::Supervisor => ("tcp", supervisor("")),
            Name::SupervisorCache => ("tcp", supervisor("descriptor_cache = true\n")),
            Name::SupervisorCacheQueue => ("tcp", supervisor("descriptor_cache = true\npriority_queue = true\n")),
            Name::SingleOwner => ("tcp", "[tcp]\narchitecture = \"single_owner\"\n".to_owned()),
            Name::Symmetric => ("tcp", "[tcp]\narchitecture = \"symmetric\"\n".to_owned()),
            Name::SctpKernel => ("sctp", "[sctp]\nlayout = \"shared\"\n".to_owned()),
            Name::SctpUser => ("sctp-user", String::new()),
        };
        Subject { name: self.text().to_owned(), transport: transport.to_owned(), tables }
    }
}
