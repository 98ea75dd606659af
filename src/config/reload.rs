//! SIGHUP: a new `Live`, or nothing.
//!
//! Owns: what may change while we run. What needs a restart stays as it is, and is named. Never half a change: one mistake
//! refuses the whole file.

use std::path::Path;

use serde_json::Value;

use super::keys::Notes;
use super::{Allow, Config, Live, Mistake, sense};

/// What a reload brings.
#[derive(Debug)]
pub struct Reloaded {
    pub live: Live,
    /// One line for each key whose change waits for a restart.
    pub warnings: Vec<String>,
}

impl Config {
    /// Reads the file again for SIGHUP. The caller puts `live` into effect and logs the warnings.
    ///
    /// # Errors
    /// Every mistake of the file: then nothing changes.
    pub fn reload(&self, path: Option<&Path>) -> Result<Reloaded, Vec<Mistake>> {
        self.changed_to(Config::load(path)?)
    }

    /// What remains of `new` for this running configuration.
    pub(super) fn changed_to(&self, new: Config) -> Result<Reloaded, Vec<Mistake>> {
        let mut warnings = Vec::new();
        for (key, was, is) in differences(&self.fixed(), &new.fixed()) {
            warnings.push(format!("{key} = {is}: needs a restart; still {was}"));
        }
        let mut live = new.live;
        let has_socket = |port: &u16| !self.asks_for_kernel_sctp() || self.encapsulated.contains(port);
        for port in live.encapsulation_ports().into_iter().filter(|port| !has_socket(port)) {
            warnings.push(format!(
                "next_hop.encapsulation_port = {port}: with the kernel's SCTP a new port needs a restart; until then requests to there fail"
            ));
        }
        let names: Vec<_> = new.listen.iter().map(|listen| listen.name.as_str()).collect();
        live.allow.retain_mut(|allow| self.keep(allow, &names, &mut warnings));
        // The new live part meets the old fixed one: 64*T1 against autoclose, next hops against listeners.
        let merged = Config { live, ..self.clone() };
        let notes = Notes::default();
        sense::compare(&merged, &notes);
        let mistakes = notes.into_mistakes();
        if mistakes.is_empty() { Ok(Reloaded { live: merged.live, warnings }) } else { Err(mistakes) }
    }

    /// An `[[allow]]` names a listener of the new file; we run with the old ones.
    fn keep(&self, allow: &mut Allow, names: &[&str], warnings: &mut Vec<String>) -> bool {
        let Some(name) = allow.listener.and_then(|at| names.get(at)) else { return true };
        allow.listener = self.listen.iter().position(|listen| listen.name == *name);
        if allow.listener.is_none() {
            warnings.push(format!("allow.listener = {name}: that listener needs a restart; left out until then"));
        }
        allow.listener.is_some()
    }

    /// The keys that only a restart changes, named as in the file.
    pub(super) fn fixed(&self) -> Value {
        serde_json::json!({
            "workers": self.workers,
            "user": self.user,
            "listen": self.listen,
            "admin": self.admin,
            "memory": self.memory,
            "sctp": self.sctp,
            "udp": self.udp,
            "tcp": self.tcp,
            "location": self.location,
        })
    }
}

/// Paths whose values differ; lists are compared whole.
fn differences(was: &Value, is: &Value) -> Vec<(String, String, String)> {
    let (Value::Object(old), Value::Object(new)) = (was, is) else { return Vec::new() };
    let mut found = Vec::new();
    for (key, was) in old {
        let is = new.get(key).unwrap_or(&Value::Null);
        match (was, is) {
            (Value::Object(_), Value::Object(_)) => {
                let inner = differences(was, is).into_iter();
                found.extend(inner.map(|(path, was, is)| (format!("{key}.{path}"), was, is)));
            }
            _ if was != is => found.push((key.clone(), was.to_string(), is.to_string())),
            _ => {}
        }
    }
    found
}
