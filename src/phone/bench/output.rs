//! A file for what a measurement finds, opened before it begins: a wrong path is told then, not after an hour.
//!
//! Owns: that what lies there stays until there is something new.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

pub(super) struct Output {
    path: PathBuf,
    file: File,
    /// Made by us, and still empty.
    is_new: bool,
}

impl Output {
    /// # Errors
    /// Nothing can be written there.
    pub(super) fn open(path: &Path) -> Result<Output, String> {
        let is_new = !path.exists();
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path);
        let file = file.map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Output { path: path.to_owned(), file, is_new })
    }

    /// Writes it as JSON, over what was there.
    ///
    /// # Errors
    /// It cannot be written after all.
    pub(super) fn write(mut self, what: &impl Serialize) -> Result<(), String> {
        let text = serde_json::to_string_pretty(what).map_err(|e| e.to_string())? + "\n";
        self.is_new = false;
        self.fill(&text).map_err(|e| format!("{}: {e}", self.path.display()))
    }

    fn fill(&mut self, text: &str) -> io::Result<()> {
        // A pipe (/dev/stdout) has no length.
        if self.file.metadata()?.is_file() {
            self.file.set_len(0)?;
        }
        self.file.write_all(text.as_bytes())
    }
}

impl Drop for Output {
    /// There was nothing to write: an empty file would be taken for a result.
    fn drop(&mut self) {
        if self.is_new {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_overwritten_only_by_something_and_a_new_one_left_only_with_something() {
        let path = std::env::temp_dir().join(format!("strowger-output-{}.json", std::process::id()));
        drop(Output::open(&path).unwrap());
        assert!(!path.exists());
        Output::open(&path).unwrap().write(&"a long first text").unwrap();
        drop(Output::open(&path).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "\"a long first text\"\n");
        Output::open(&path).unwrap().write(&7).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "7\n");
        fs::remove_file(&path).unwrap();
        assert!(Output::open(&path.join("below")).is_err());
    }
}
