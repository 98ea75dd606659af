//! TCP. Its files: `connection` (one connection, whoever has it), `symmetric` (the worker that has it is its only reader and
//! writer).

mod connection;
mod symmetric;

pub use symmetric::Tcp;
