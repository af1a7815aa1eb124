//! Printing: the only module that writes to standard output and standard error.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is where a command speaks"
)]

use bpfsim::explanation::Explanation;
use bpfsim::timeline::{self, parts, through_btf};
pub use bpfsim::timeline::{compact, unnamed};
use bpfsim::{Ebpf, Map, MapBtf, MapSpec, Sim};
use bpfsim_btf::Type;
use bpfsim_btf::fields::parse_fields;
use clap::ColorChoice;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal, Write};

/// A map's contents, ready to be shown.
pub struct Shown {
    pub name: String,
    pub kind: String,
    spec: MapSpec,
    /// Keys and values through BTF.
    pub entries: Vec<(Value, Value)>,
    /// Of each entry, whether its value is all zero.
    zero: Vec<bool>,
}

/// Elements of a map that are read and shown at most.
const MOST: usize = 4096;

/// Reads a map.
pub fn map(map: &Map) -> Shown {
    let spec = map.spec();
    let raw = map.first_entries(MOST).unwrap_or_default();
    let mut shown = Shown {
        name: spec.name.clone(),
        kind: spec.map_type.name().to_string(),
        entries: Vec::new(),
        zero: raw.iter().map(|(_, v)| v.iter().all(|&b| b == 0)).collect(),
        spec,
    };
    shown.entries = raw
        .iter()
        .map(|(k, v)| (shown.key(k), shown.value(v)))
        .collect();
    shown
}

impl Shown {
    /// A key of this map.
    pub fn key(&self, bytes: &[u8]) -> Value {
        timeline::typed(&self.spec, true, bytes)
    }

    /// A value of this map.
    pub fn value(&self, bytes: &[u8]) -> Value {
        timeline::typed(&self.spec, false, bytes)
    }

    /// As lines of text. Of an array, elements that are all zero are only counted; of a section
    /// of variables, those of functions (`f.x`) are left out, as are slots of special fields,
    /// which read as zero whatever they hold.
    pub fn lines(&self) -> Vec<String> {
        if let Some(variables) = self.variables() {
            let head = vec![self.name.clone()];
            let lines = variables
                .iter()
                .flat_map(|(name, v)| pretty(&format!("  {name} = "), v));
            return head.into_iter().chain(lines).collect();
        }
        // Those whose elements are all there from the start.
        let array = matches!(self.kind.as_str(), "array" | "percpu_array");
        let mut lines = vec![match array {
            true => format!(
                "{} ({}, {} elements)",
                self.name, self.kind, self.spec.max_entries
            ),
            false => format!(
                "{} ({}, {} of {})",
                self.name,
                self.kind,
                self.entries.len(),
                self.spec.max_entries
            ),
        }];
        let special = self.special_members();
        for ((key, value), _) in self
            .entries
            .iter()
            .zip(&self.zero)
            .filter(|(_, zero)| !array || !**zero)
        {
            let mut value = value.clone();
            if let Value::Object(members) = &mut value {
                members.retain(|name, _| !special.contains(name));
            }
            lines.extend(pretty(&format!("  [{}] = ", unnamed(key)), &value));
        }
        let zero = self.zero.iter().filter(|z| **z).count();
        if array && zero > 0 {
            lines.push(format!("  {zero} of {} all zero", self.entries.len()));
        }
        if self.entries.len() == MOST {
            lines.push(format!("  only the first {MOST} are shown"));
        }
        lines
    }

    /// True for string literals, which are no variables.
    pub fn is_literals(&self) -> bool {
        self.name.starts_with(".rodata.str")
    }

    /// The variables of a section, by name.
    fn variables(&self) -> Option<Vec<(&str, &Value)>> {
        let Value::Object(section) = &self.entries.first()?.1 else {
            return None;
        };
        let (_, variables) = section.iter().next().filter(|(n, _)| n.starts_with('.'))?;
        let members = variables
            .as_array()?
            .iter()
            .filter_map(Value::as_object)
            .flatten();
        Some(
            members
                .filter(|(n, _)| !n.contains('.'))
                .map(|(n, v)| (n.as_str(), v))
                .collect(),
        )
    }

    /// Names of the value's members that are timers and their like.
    fn special_members(&self) -> Vec<String> {
        let Some(MapBtf { btf, value, .. }) = &self.spec.btf else {
            return Vec::new();
        };
        let fields = parse_fields(btf, *value).unwrap_or_default();
        let Ok((_, Type::Struct(s))) = btf.resolve(*value) else {
            return Vec::new();
        };
        let special = |bits: u32| fields.iter().any(|f| f.offset == bits / 8);
        s.members
            .iter()
            .filter(|m| special(m.bit_offset))
            .map(|m| m.name.to_string())
            .collect()
    }
}

/// A global variable, through BTF.
pub fn global(bpf: &Ebpf, name: &str) -> Result<Value, bpfsim::Error> {
    let (btf, ty, _) = bpf.global_type(name)?;
    Ok(through_btf(&btf, ty, &bpf.global_bytes(name)?))
}

/// A struct or an array of structs as a line, or where that is long a line for each part.
fn pretty(head: &str, value: &Value) -> Vec<String> {
    const WIDTH: usize = 110;
    let line = format!("{head}{}", compact(value));
    match value {
        Value::Object(members) if line.chars().count() > WIDTH => {
            let indent = " ".repeat(head.len() - head.trim_start().len() + 2);
            let mut lines = Vec::new();
            if !head.trim().is_empty() {
                lines.push(head.trim_end().to_string());
            }
            for (name, member) in members {
                lines.extend(pretty(&format!("{indent}{name}: "), member));
            }
            lines
        }
        Value::Array(items)
            if line.chars().count() > WIDTH && items.iter().any(Value::is_object) =>
        {
            let indent = " ".repeat(head.len() - head.trim_start().len() + 2);
            let items = parts(items, compact);
            let items = items.iter().map(|item| format!("{indent}{item}"));
            std::iter::once(head.trim_end().to_string())
                .chain(items)
                .collect()
        }
        _ => vec![line],
    }
}

/// Prints a line. A reader that went away ends the output, not the command.
pub fn line(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Prints a heading.
pub fn heading(text: &str) {
    line("");
    line(text);
}

/// Prints a JSON object.
pub fn json(value: &Value) {
    line(&value.to_string());
}

/// Reports what ended a command.
pub fn error(message: &str) {
    let _ = writeln!(std::io::stderr(), "bpfsim: {message}");
}

/// Prints why a program is refused, below an error.
pub fn explain_error(explanation: &Explanation, color: ColorChoice) {
    let mut to = std::io::stderr();
    let coloured = coloured(color, to.is_terminal());
    let _ = writeln!(to, "{}", explanation.render(coloured));
}

/// Prints why a program is refused, as part of what was asked for.
pub fn explain(explanation: &Explanation, color: ColorChoice) {
    let coloured = coloured(color, std::io::stdout().is_terminal());
    line(&explanation.render(coloured));
}

fn coloured(color: ColorChoice, terminal: bool) -> bool {
    match color {
        ColorChoice::Auto => terminal,
        ColorChoice::Always => true,
        ColorChoice::Never => false,
    }
}

/// What detectors found, each once: kind, place and the other place, which are the same in all
/// orders, and what it was about.
#[derive(Default, Clone, serde::Serialize, serde::Deserialize)]
pub struct Warnings(BTreeMap<String, BTreeSet<String>>);

impl Warnings {
    /// Of one run.
    pub fn of(sim: &Sim) -> Warnings {
        let mut warnings = Warnings::default();
        for found in sim.warnings() {
            let about = warnings.0.entry(warning(&found)).or_default();
            about.extend(found.object());
        }
        warnings
    }

    /// Adds those of another run.
    pub fn merge(&mut self, other: Warnings) {
        for (text, about) in other.0 {
            self.0.entry(text).or_default().extend(about);
        }
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each as a line. Of many elements the first is named.
    pub fn lines(&self) -> Vec<String> {
        let line = |(text, about): (&String, &BTreeSet<String>)| match about.first() {
            None => text.clone(),
            Some(one) if about.len() == 1 => format!("{text}: {one}"),
            Some(one) => format!("{text}: {one} and {} more", about.len() - 1),
        };
        self.0.iter().map(line).collect()
    }
}

/// What a detector found, the same in all orders: kind, place and the other place.
fn warning(found: &bpfsim::Warning) -> String {
    let place = |place: Option<&bpfsim::Place>| match place {
        Some(place) => format!("in {place}"),
        None => "by user space".to_string(),
    };
    let mut text = format!("{} {}", found.kind.name(), place(found.place.as_deref()));
    if let Some(other) = &found.other {
        text += &format!(", and {}", place(other.place.as_ref()));
    }
    text
}

/// The warnings, under a heading if there are any.
pub fn warnings(found: &Warnings) {
    if !found.is_empty() {
        heading("warnings");
    }
    for text in found.lines() {
        line(&format!("  {text}"));
    }
}
