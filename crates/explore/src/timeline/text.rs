//! For terminals.

use super::{Kind, Step, Timeline};
use std::fmt::Write;

/// How much of a timeline is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Detail {
    /// What began and ended, was armed, cancelled, printed.
    #[default]
    Events,
    /// All visible operations, their C lines, and map values that changed.
    All,
}

/// Most lines of a timeline on a terminal.
const MAX_LINES: usize = 200;

impl Timeline {
    /// A line for each step, without a heading.
    pub fn text(&self, detail: Detail) -> String {
        let mut out = "            time  cpu  context  what\n".to_string();
        let shown = |s: &&Step| {
            detail == Detail::All
                || matches!(
                    s.kind,
                    Kind::Begin
                        | Kind::End
                        | Kind::Armed
                        | Kind::Disarmed
                        | Kind::Chance
                        | Kind::Printk
                )
        };
        let steps: Vec<&Step> = self.steps.iter().filter(shown).collect();
        for step in steps.iter().take(MAX_LINES) {
            // Writing to a string does not fail.
            let _ = writeln!(out, "{}", self.row(step, detail));
        }
        if steps.len() > MAX_LINES {
            let _ = writeln!(out, "  ... {} more events", steps.len() - MAX_LINES);
        }
        out
    }

    fn row(&self, step: &Step, detail: Detail) -> String {
        let (cpu, level) = self
            .lanes
            .get(step.lane)
            .map_or((0, ""), |l| (l.cpu, l.level));
        let (indent, arrow) = match (detail, step.kind) {
            (Detail::Events, _) | (_, Kind::Begin | Kind::End) => ("", ""),
            (_, Kind::Changed) => ("    ", "=> "),
            _ => ("  ", ""),
        };
        let mut row = format!(
            "  {:>14}  {cpu:>3}  {level:<7}  {indent}{arrow}{}",
            time(step.at),
            step.text
        );
        if detail == Detail::All {
            for race in &step.races {
                let _ = write!(row, "  <race {race}>");
            }
            if let (Some(line), false) = (&step.line, step.kind == Kind::Changed) {
                row = format!("{row:<78}  {}:{} {}", line.file, line.line, line.text);
            }
        }
        row
    }
}

/// Nanoseconds, in the unit that reads best.
pub fn time(ns: u64) -> String {
    match ns {
        0..1_000_000 => format!("{}.{:03} us", ns / 1_000, ns % 1_000),
        1_000_000..1_000_000_000 => format!("{}.{:06} ms", ns / 1_000_000, ns % 1_000_000),
        _ => format!("{}.{:09} s", ns / 1_000_000_000, ns % 1_000_000_000),
    }
}
