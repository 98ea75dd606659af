//! SIGHUP: the configuration is read again, checked whole, and takes effect whole or not at all (issue 2 item 9).
//!
//! Owns: what may change while the daemon runs: `config::Live`. Everything else was opened or mapped at the start.

use std::path::Path;

use crate::config::{self, Config};
use crate::shared::Counter;
use crate::worker::House;

/// Reads `path` again (with the environment); on success every process is told. A wrong file changes nothing.
pub(super) fn reload(house: &mut House, path: Option<&Path>) {
    let counters = house.shared.counters;
    match read(house, path) {
        Ok(version) => {
            counters.add(counters.master(), Counter::Reloads, 1);
            house.wake_all();
            tracing::info!("configuration reloaded (version {version})");
        }
        Err(mistakes) => {
            counters.add(counters.master(), Counter::ReloadsRefused, 1);
            for mistake in mistakes {
                tracing::error!("configuration not reloaded: {mistake}");
            }
        }
    }
}

fn read(house: &mut House, path: Option<&Path>) -> Result<u64, Vec<String>> {
    let new = config::read(path).map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    if !same(&new.listen, &house.config.listen) {
        // `allow` names listeners by their place in the list: with another list it would speak of others.
        return Err(vec!["listen: cannot change while the daemon runs; restart it".to_owned()]);
    }
    let version = house.shared.settings.publish(&new.live).map_err(|error| vec![error.to_string()])?;
    for key in fixed_that_differ(&new, &house.config) {
        tracing::warn!("{key}: changed in the file, takes effect only at a restart");
    }
    // The next successor is forked from this memory.
    house.config.live = new.live;
    Ok(version)
}

fn fixed_that_differ(new: &Config, old: &Config) -> Vec<&'static str> {
    let differ = [
        ("workers", !same(&new.workers, &old.workers)),
        ("user", !same(&new.user, &old.user)),
        ("admin", !same(&new.admin, &old.admin)),
        ("memory", !same(&new.memory, &old.memory)),
        ("sctp", !same(&new.sctp, &old.sctp)),
        ("udp", !same(&new.udp, &old.udp)),
        ("tcp", !same(&new.tcp, &old.tcp)),
        ("location", !same(&new.location, &old.location)),
    ];
    differ.into_iter().filter_map(|(key, differs)| differs.then_some(key)).collect()
}

/// These values are plain lists of settings, and `Debug` shows every one.
fn same<T: std::fmt::Debug>(a: &T, z: &T) -> bool {
    format!("{a:?}") == format!("{z:?}")
}
