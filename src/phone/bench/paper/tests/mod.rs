//! The matrix, the arithmetic and the drawing; the fixture is drawn, never measured.

mod arithmetic;
mod drawing;
mod fixture;
mod going_on;
mod matrix;
