//! All unsafe code of the project.
