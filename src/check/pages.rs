//! Whether the kernel gives huge pages for shared memory to those that ask (Linux, Documentation/admin-guide/mm/transhuge.rst).
//!
//! Owns: reading the one setting. What cannot be read says nothing.

use std::fs;

const SETTING: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";

/// What to change, if this kernel has huge pages and refuses them.
#[must_use]
pub fn advice() -> Option<String> {
    refuses(&fs::read_to_string(SETTING).ok()?).then(|| {
        format!(
            "small: with \"advise\" in {SETTING} calls cost less CPU, and memory that is used at all is soon used whole"
        )
    })
}

/// The choice that is made stands in brackets.
fn refuses(setting: &str) -> bool {
    setting.contains("[never]") || setting.contains("[deny]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_is_something_to_change() {
        assert!(refuses("always within_size advise [never] deny force\n"));
        assert!(refuses("always within_size advise never [deny] force\n"));
        assert!(!refuses("always within_size [advise] never deny force\n"));
        assert!(!refuses("[always] within_size advise never deny force\n"));
    }
}
