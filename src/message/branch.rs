//! The branch we put in Via: it names slot and generation, carries loop detection (RFC 5393 §4.2) and a keyed hash.

/// Names a transaction's slot in the table: global index (0 is none) and generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct BranchId {
    pub slot: u32,
    pub generation: u32,
}
