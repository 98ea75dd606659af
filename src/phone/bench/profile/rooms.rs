//! Which room of the house an instruction belongs to.
//!
//! Owns: the way from an address to a room. A symbol's name is not enough: the linker's optimiser folds most of the house into a few
//! functions. So the line tables are asked (crate `addr2line`), which know every inlined function: the innermost one that is of the
//! house decides. What the house has inlined from elsewhere (a vector grows, a header is searched) is so the room's that did it;
//! what was not inlined (`memchr`, a hash) stands under its own name.

use std::borrow::Cow;
use std::path::Path;

use addr2line::Loader;

/// Crates that do work of their own: not their caller's even when inlined.
const NAMED: [&str; 2] = ["dcsctp", "mio"];

/// Where a sample belongs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub room: String,
    pub function: String,
}

/// One function of those that an address lies in, innermost first.
#[derive(Clone, Debug)]
pub struct Frame {
    pub function: String,
    pub file: String,
}

/// The line tables of the daemon's program.
pub struct Lines {
    loader: Loader,
}

impl Lines {
    /// # Errors
    /// The program cannot be read.
    pub fn of(program: &Path) -> Result<Lines, String> {
        let loader = Loader::new(program).map_err(|e| format!("the line tables of {}: {e}", program.display()))?;
        Ok(Lines { loader })
    }

    /// `address`: as the program was linked.
    #[must_use]
    pub fn place(&self, address: u64) -> Option<Place> {
        let mut frames = Vec::new();
        let mut found = self.loader.find_frames(address).ok()?;
        while let Ok(Some(frame)) = found.next() {
            let name = frame.function.as_ref().and_then(|name| name.demangle().ok().map(Cow::into_owned));
            let file = frame.location.and_then(|location| location.file).unwrap_or_default();
            frames.push(Frame { function: name.unwrap_or_default(), file: file.to_owned() });
        }
        attribute(&frames)
    }
}

/// Which of the frames is charged.
#[must_use]
pub fn attribute(frames: &[Frame]) -> Option<Place> {
    let place = |frame: &Frame, room: &str| Place { room: room.to_owned(), function: full_name(frame) };
    let foreign =
        |frame: &Frame, name: &str| Place { room: name.to_owned(), function: format!("{name}::{}", full_name(frame)) };
    for frame in frames {
        match whose(&frame.file) {
            Whose::House(room) => return Some(place(frame, room)),
            Whose::Crate(name) if NAMED.contains(&name) => return Some(foreign(frame, name)),
            Whose::Crate(_) | Whose::Std | Whose::Unknown => {}
        }
    }
    let outermost = frames.last()?;
    match whose(&outermost.file) {
        Whose::Crate(name) => Some(foreign(outermost, name)),
        Whose::Std => Some(foreign(outermost, "std")),
        Whose::House(_) | Whose::Unknown => None,
    }
}

/// Whose source a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose<'p> {
    /// A room of ours.
    House(&'p str),
    Crate(&'p str),
    Std,
    Unknown,
}

/// Where this program was compiled; line tables name it, or begin behind it.
const TOP: &str = env!("CARGO_MANIFEST_DIR");

#[must_use]
pub fn whose(file: &str) -> Whose<'_> {
    let here = file.strip_prefix(TOP).map_or(file, |rest| rest.trim_start_matches('/'));
    if let Some(rest) = here.strip_prefix("src/") {
        let room = rest.split('/').next().unwrap_or(rest);
        return Whose::House(room.strip_suffix(".rs").unwrap_or(room));
    }
    if here.starts_with("sys/src/") {
        return Whose::House("sys");
    }
    // ~/.cargo/registry/src/INDEX/NAME-VERSION/src/...
    if let Some((_, rest)) = file.split_once("/registry/src/") {
        return rest.split('/').nth(1).map_or(Whose::Unknown, |folder| Whose::Crate(without_version(folder)));
    }
    if file.contains("/rustc/") || file.contains("/library/") {
        return Whose::Std;
    }
    Whose::Unknown
}

/// `transport::tcp::send::flush`: line tables know a function's last name, and its file tells the rest.
fn full_name(frame: &Frame) -> String {
    let file = frame.file.rsplit_once("src/").map_or(frame.file.as_str(), |(_, rest)| rest);
    let module = file.strip_suffix(".rs").unwrap_or(file).trim_end_matches("/mod").replace('/', "::");
    // `{closure#0}` and `<impl at ...>` say nothing; generic arguments are long.
    let name = frame.function.split('<').find(|part| !part.is_empty()).unwrap_or_default();
    let last = name.rsplit("::").find(|part| !part.is_empty()).unwrap_or_default();
    if last.is_empty() { module } else { format!("{module}::{last}") }
}

/// `rustc-demangle-0.1.24` without the number.
fn without_version(folder: &str) -> &str {
    let is_version = |at: &usize| folder.as_bytes().get(at + 1).is_some_and(u8::is_ascii_digit);
    let cut = folder.match_indices('-').map(|(at, _)| at).find(is_version);
    cut.and_then(|at| folder.get(..at)).unwrap_or(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(function: &str, file: &str) -> Frame {
        Frame { function: function.to_owned(), file: file.to_owned() }
    }

    #[test]
    fn every_folder_and_file_of_the_house_is_a_room() {
        let mut rooms = 0;
        for entry in std::fs::read_dir(Path::new(TOP).join("src")).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let (room, file) = match name.strip_suffix(".rs") {
                Some(room) => (room, format!("src/{name}")),
                None => (name.as_str(), format!("src/{name}/a/b.rs")),
            };
            assert_eq!(whose(&file), Whose::House(room));
            assert_eq!(whose(&format!("{TOP}/{file}")), Whose::House(room));
            rooms += 1;
        }
        assert!(rooms >= 13, "{rooms} rooms");
        assert_eq!(whose(&format!("{TOP}/sys/src/datagram/send.rs")), Whose::House("sys"));
        assert_eq!(whose("sys/src/lib.rs"), Whose::House("sys"));
    }

    #[test]
    fn what_is_not_ours_is_a_crate_or_the_standard_library() {
        let cargo = "/root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f";
        assert_eq!(whose(&format!("{cargo}/dcsctp-0.1.7/src/socket/state.rs")), Whose::Crate("dcsctp"));
        assert_eq!(whose(&format!("{cargo}/rustc-demangle-0.1.24/src/lib.rs")), Whose::Crate("rustc-demangle"));
        assert_eq!(whose(&format!("{cargo}/hmac-sha2-x/src/lib.rs")), Whose::Crate("hmac-sha2-x"));
        assert_eq!(whose("/rustc/59807616e1fa2540724bfbac14d7976d7e4a3860/library/core/src/ptr/mod.rs"), Whose::Std);
        assert_eq!(whose("library/alloc/src/vec.rs"), Whose::Unknown);
        assert_eq!(whose(""), Whose::Unknown);
    }

    #[test]
    fn the_innermost_frame_of_the_house_is_charged() {
        let memchr = "/c/registry/src/i/memchr-2.7.4/src/arch/x86_64/avx2/memchr.rs";
        let std = "/rustc/abc/library/alloc/src/vec/mod.rs";
        let inlined = [
            frame("extend_from_slice<u8>", std),
            frame("forward_request", "src/message/edit.rs"),
            frame("request", "src/proxy/forward.rs"),
        ];
        let place = attribute(&inlined).unwrap();
        assert_eq!((place.room.as_str(), place.function.as_str()), ("message", "message::edit::forward_request"));
        let place = attribute(&[frame("find", memchr), frame("turn", "src/worker/mod.rs")]).unwrap();
        assert_eq!((place.room.as_str(), place.function.as_str()), ("worker", "worker::turn"));
        // Not inlined: under its own name.
        assert_eq!(attribute(&[frame("read", std), frame("find", memchr)]).unwrap().room, "memchr");
        assert_eq!(attribute(&[frame("drop_in_place", std)]).unwrap().room, "std");
        // Work of its own stays its own.
        let dcsctp = frame("handle_input", "/c/registry/src/i/dcsctp-0.1.7/src/socket/mod.rs");
        let packet = frame("packet", "src/transport/sctp/user/mod.rs");
        assert_eq!(attribute(&[frame("push", std), dcsctp, packet]).unwrap().room, "dcsctp");
        assert_eq!(attribute(&[]), None);
    }
}
