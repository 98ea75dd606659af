//! The start, in this order: sysctls and limits, sockets, memory, privileges. After it, nothing needs a
//! privilege.
//!
//! Owns: that order. A respawn repeats none of it.

use mio::net::TcpListener;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::unistd::{User, geteuid};

use super::admin::Admin;
use super::kernel;
use crate::config::Config;
use crate::shared::{Shared, Wakes};
use crate::transport::Sockets;
use crate::worker::House;

/// Opens and maps everything; the admin listener beside the house is the master's own. Third: what could not be had.
pub(super) fn open(config: Config) -> Result<(House, Option<TcpListener>, Vec<String>), String> {
    let mut warnings = kernel::prepare(&config);
    let sockets = Sockets::open(&config).map_err(|error| error.to_string())?;
    warnings.extend(sockets.warnings.iter().cloned());
    let admin = config.admin.address.map(|address| {
        Admin::open(address)
            .map_err(|error| format!("admin.address = {address}: {error}; is a daemon running already?"))
    });
    let admin = admin.transpose()?;
    let shared = Shared::new(&config, config.seats()).map_err(|error| format!("shared memory: {error}"))?;
    let wakes = wakes(config.seats()).map_err(|error| format!("eventfd: {error}"))?;
    warnings.extend(drop_privileges(config.user.as_deref())?);
    if let Some(line) = &sockets.kernel_sctp {
        tracing::info!("{line}");
    }
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    Ok((House { config, sockets, shared, wakes }, admin, warnings))
}

fn wakes(seats: usize) -> nix::Result<Wakes> {
    let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
    let descriptors = (0..seats).map(|_| EventFd::from_value_and_flags(0, flags).map(Into::into));
    Ok(Wakes::new(descriptors.collect::<nix::Result<_>>()?))
}

/// Becomes `user`, for good; gives back a warning when that leaves us root.
fn drop_privileges(user: Option<&str>) -> Result<Option<String>, String> {
    let is_root = geteuid().is_root();
    match user {
        None if is_root => Ok(Some("running as root: set `user` in the configuration".to_owned())),
        None => Ok(None),
        Some(user) if is_root => {
            sys::process::drop_privileges(user).map_err(|error| format!("user = {user}: {error}"))?;
            Ok(None)
        }
        Some(user) => match User::from_uid(geteuid()) {
            Ok(Some(us)) if us.name == user => Ok(None),
            _ => Err(format!("user = {user}: only root can become another user; start as root or leave `user` out")),
        },
    }
}
