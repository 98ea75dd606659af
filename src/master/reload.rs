//! SIGHUP: the configuration is read again, checked whole, and takes effect whole or not at all.
//!
//! Owns: the moment of the change and its log lines. What may change and what is right, `config` knows.

use std::path::Path;

use crate::log;
use crate::shared::Counter;
use crate::worker::House;

/// Reads `path` (and the environment) again; on success every process is told. A wrong file changes nothing.
pub(super) fn reload(house: &mut House, path: Option<&Path>) {
    let counters = house.shared.counters;
    match take_effect(house, path) {
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

fn take_effect(house: &mut House, path: Option<&Path>) -> Result<u64, Vec<String>> {
    let reloaded =
        house.config.reload(path).map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    let version = house.shared.settings.publish(&reloaded.live).map_err(|error| vec![error.to_string()])?;
    for warning in reloaded.warnings {
        tracing::warn!("{warning}");
    }
    log::set_level(reloaded.live.log.level);
    // A successor is forked from this memory.
    house.config.live = reloaded.live;
    Ok(version)
}
