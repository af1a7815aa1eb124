//! What a step expects.

use super::{Problem, failed, value};
use crate::show;
use bpfsim::{Ebpf, Job, Sim, What};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ops::Range;
use toml::{Spanned, Value};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// What the program of this step returned.
    #[serde(rename = "return")]
    returned: Option<Spanned<i64>>,
    /// Global variables.
    #[serde(default)]
    globals: BTreeMap<String, Spanned<Value>>,
    /// Elements of maps.
    #[serde(default)]
    map: Vec<MapElement>,
    /// Number of elements of maps.
    #[serde(default)]
    len: BTreeMap<String, Spanned<u32>>,
    /// Texts that lines printed so far contain, in this order.
    #[serde(default)]
    printk: Vec<Spanned<String>>,
    /// How often callbacks ran so far, by function.
    #[serde(default)]
    callbacks: BTreeMap<String, Spanned<u64>>,
    /// What spawned programs returned, by name.
    #[serde(default)]
    spawned: BTreeMap<String, Spanned<i64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MapElement {
    map: Spanned<String>,
    key: Spanned<Value>,
    /// The value, or as much of it as matters.
    value: Option<Spanned<Value>>,
    /// There is no such element.
    #[serde(default)]
    absent: bool,
}

fn unmet<T>(span: Range<usize>, message: String) -> Result<T, Problem> {
    Err(Problem {
        span,
        message,
        wrong: false,
        failed: None,
    })
}

impl Expect {
    /// Holds it against a simulation.
    pub fn check(
        &self,
        sim: &Sim,
        bpf: &Ebpf,
        returned: Option<u32>,
        jobs: &[(String, Job)],
    ) -> Result<(), Problem> {
        if let Some(want) = &self.returned {
            match returned {
                None => return super::wrong(want.span(), "nothing ran in this step"),
                Some(got) if !same_u32(got, *want.get_ref()) => {
                    return unmet(
                        want.span(),
                        format!("returned {got}, expected {}", want.get_ref()),
                    );
                }
                Some(_) => {}
            }
        }
        for (name, want) in &self.globals {
            let got = show::global(bpf, name).map_err(failed(want.span()))?;
            check_value(name, &got, want)?;
        }
        for element in &self.map {
            element.check(bpf)?;
        }
        for (name, want) in &self.len {
            let got = bpf.map(name).map_err(failed(want.span()))?.len();
            if got != *want.get_ref() {
                return unmet(
                    want.span(),
                    format!("{name} has {got} elements, expected {}", want.get_ref()),
                );
            }
        }
        self.check_events(sim)?;
        for (name, want) in &self.spawned {
            let results = jobs
                .iter()
                .filter(|(n, _)| n == name)
                .map(|(_, job)| sim.result(*job));
            for result in results {
                match result {
                    None => return unmet(want.span(), format!("{name} has not ended")),
                    Some(out) if !same_u32(out.return_value, *want.get_ref()) => {
                        return unmet(
                            want.span(),
                            format!(
                                "{name} returned {}, expected {}",
                                out.return_value,
                                want.get_ref()
                            ),
                        );
                    }
                    Some(_) => {}
                }
            }
        }
        Ok(())
    }

    fn check_events(&self, sim: &Sim) -> Result<(), Problem> {
        let printed = sim.printk();
        let mut lines = printed.iter();
        for want in &self.printk {
            if !lines.any(|line| line.contains(want.get_ref().as_str())) {
                return unmet(
                    want.span(),
                    format!("not printed (in this order): {}", want.get_ref()),
                );
            }
        }
        let trace = sim.trace();
        for (function, want) in &self.callbacks {
            let ran = |e: &&bpfsim::Event| matches!(&e.what, What::CallbackEnd { name, .. } if name == function);
            let got = trace.events().iter().filter(ran).count() as u64;
            if got != *want.get_ref() {
                return unmet(
                    want.span(),
                    format!("{function} ran {got} times, expected {}", want.get_ref()),
                );
            }
        }
        Ok(())
    }
}

impl MapElement {
    fn check(&self, bpf: &Ebpf) -> Result<(), Problem> {
        let name = self.map.get_ref();
        let map = bpf.map(name).map_err(failed(self.map.span()))?;
        let key = value::key(&map, &self.key)?;
        let found = map.lookup(&key).map_err(failed(self.map.span()))?;
        let label = format!("{name}[{}]", show::unnamed(&show::map(&map).key(&key)));
        match (found, &self.value) {
            (Some(_), _) if self.absent => unmet(self.key.span(), format!("{label} exists")),
            (None, _) if self.absent => Ok(()),
            (None, _) => unmet(self.key.span(), format!("{label} does not exist")),
            (Some(bytes), Some(want)) => check_value(&label, &show::map(&map).value(&bytes), want),
            (Some(_), None) => Ok(()),
        }
    }
}

/// R0 may be written signed or unsigned.
fn same_u32(got: u32, want: i64) -> bool {
    i64::from(got) == want || i64::from(got as i32) == want
}

fn check_value(label: &str, got: &serde_json::Value, want: &Spanned<Value>) -> Result<(), Problem> {
    match difference(label, got, want.get_ref()) {
        None => Ok(()),
        Some(message) => unmet(want.span(), message),
    }
}

/// Where a value is not as expected. Members that are not named do not matter.
fn difference(label: &str, got: &serde_json::Value, want: &Value) -> Option<String> {
    use serde_json::Value as J;
    let differs = || {
        Some(format!(
            "{label} is {}, expected {want}",
            show::compact(got)
        ))
    };
    match (got, want) {
        (J::Object(members), Value::Table(wanted)) => wanted.iter().find_map(|(name, want)| {
            let label = format!("{label}.{name}");
            match members.get(name) {
                Some(got) => difference(&label, got, want),
                None => Some(format!("{label}: there is no such member")),
            }
        }),
        (J::Array(items), Value::Array(wanted)) => {
            let each = items.iter().zip(wanted).enumerate();
            let mut each =
                each.map(|(i, (got, want))| difference(&format!("{label}[{i}]"), got, want));
            if items.len() < wanted.len() {
                differs()
            } else {
                each.find_map(|d| d)
            }
        }
        (J::Number(n), Value::Integer(want)) => {
            let same = n.as_i64() == Some(*want) || n.as_u64() == Some(*want as u64) && *want >= 0;
            if same { None } else { differs() }
        }
        (J::Bool(b), Value::Boolean(want)) if b == want => None,
        (J::Bool(b), Value::Integer(want)) if i64::from(*b) == *want => None,
        (J::String(s), Value::String(want)) if s == want => None,
        (J::String(s), Value::Integer(want)) if pointer(s) == Some(*want as u64) => None,
        _ => differs(),
    }
}

/// Pointers are shown in hexadecimal.
fn pointer(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}
