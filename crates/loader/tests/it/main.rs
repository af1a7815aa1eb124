//! The loader against fixtures, goblin, hostile bytes and objects made on purpose.

mod built;
mod extremes;
mod fixtures;
mod hostile;
mod steps;
