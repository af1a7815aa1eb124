//! What bpfsim itself does with a row of the tables. The only place to edit when something is
//! implemented.

/// How far bpfsim supports something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Status {
    /// All of it, as Linux does it.
    Done,
    /// A part of it; the text says what is lacking.
    Partial(&'static str),
    /// Nothing: refused by name.
    #[default]
    No,
}
