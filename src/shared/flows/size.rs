//! Tables of several sizes: the configuration chooses one, and only that one is mapped.
//!
//! Owns: which sizes there are, and how each is locked. What lies in a table is the same for all (`FlowTable`).

use std::io;

use sys::memory::{Guard, Locked, Mapping, Plan, Span};

use super::table::{FlowTable, Stored};

/// Declares the sizes, smallest first: places of a table, one more than it has entries.
macro_rules! sizes {
    (largest $largest:ident; $($name:ident = $places:literal,)+) => {
        /// Where the tables lie in the plan: one for TCP, one for SCTP.
        #[derive(Clone, Copy)]
        pub enum Sizes { $($name(Span<Locked<Stored<$places>>>),)+ }

        #[derive(Clone, Copy)]
        pub enum Tables { $($name(&'static [Locked<Stored<$places>>]),)+ }

        /// A locked table.
        pub enum Held { $($name(Guard<'static, Stored<$places>>),)+ }

        impl Sizes {
            /// The smallest tables that hold `most` entries each.
            pub fn plan(plan: &mut Plan, most: usize) -> Sizes {
                $(if most < $places {
                    return Sizes::$name(plan.locks(2));
                })+
                Sizes::$largest(plan.locks(2))
            }

            /// Places of one table.
            pub fn places(&self) -> usize {
                match self { $(Sizes::$name(_) => $places,)+ }
            }

            pub fn take(&self, mapping: &Mapping) -> io::Result<Tables> {
                Ok(match self { $(Sizes::$name(span) => Tables::$name(mapping.locks(span)?),)+ })
            }
        }

        impl Tables {
            pub fn lock(&self, number: usize) -> Option<Held> {
                match self { $(Tables::$name(tables) => Some(Held::$name(tables.get(number)?.lock())),)+ }
            }

            /// `None` also while somebody holds it.
            pub fn try_lock(&self, number: usize) -> Option<Held> {
                match self { $(Tables::$name(tables) => Some(Held::$name(tables.get(number)?.try_lock()?)),)+ }
            }
        }

        impl Held {
            pub fn table(&mut self) -> FlowTable<'_> {
                match self { $(Held::$name(guard) => guard.table(),)+ }
            }
        }
    };
}

sizes! {
    largest M1;
    K1 = 1_025,
    K4 = 4_097,
    K8 = 8_193,
    K16 = 16_385,
    K32 = 32_769,
    K64 = 65_537,
    K128 = 131_073,
    K256 = 262_145,
    K512 = 524_289,
    M1 = 1_048_577,
}

/// The largest table's entries.
pub const MOST: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::super::Flows;
    use super::*;

    fn bytes(most: usize) -> usize {
        let mut plan = Plan::new();
        Flows::plan(&mut plan, most);
        plan.bytes()
    }

    #[test]
    fn the_memory_follows_the_configuration() {
        // Some 270 bytes for each connection, and as much for each association; never more than four times what was asked for.
        for most in [1_024, 16_384, 65_536, MOST] {
            assert!((500 * most..570 * most + 8_192).contains(&bytes(most)), "{most}: {}", bytes(most));
        }
        assert_eq!(bytes(16), bytes(1_024));
        assert_eq!(bytes(16_385), bytes(32_768));
        assert!(bytes(1_025) < 4 * 570 * 1_025);
    }
}
