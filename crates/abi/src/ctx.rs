//! Context layouts.
