//! What a step expects.

use super::sched::SchedState;
use super::step::Done;
use super::text::unhex;
use super::world::Scene;
use super::{Problem, failed, value, wrong};
use crate::show;
use bpfsim::timeline::{self, through_btf};
use bpfsim::{Ebpf, Redirect, RedirectKind, RingBuf, Sim, What};
use bpfsim_btf::Kind;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ops::Range;
use toml::{Spanned, Value};

#[derive(Clone, Deserialize)]
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
    /// What the hook of this step gave.
    result: Option<Spanned<i64>>,
    /// Programs that ran at the hook of this step, in order.
    ran: Option<Spanned<Vec<String>>>,
    /// What hooks that happened side by side gave, by name.
    #[serde(default)]
    fired: BTreeMap<String, Spanned<i64>>,
    /// What the iterator of this step said, line by line.
    lines: Option<Spanned<Vec<String>>>,
    /// Where packets of this step were sent.
    redirects: Option<Spanned<Vec<Sent>>>,
    /// The packet, as this step left it.
    data: Option<Spanned<String>>,
    /// Records that are taken out of ring buffers.
    #[serde(default)]
    ringbuf: Vec<Records>,
    /// Memory of tasks.
    #[serde(default)]
    user: Vec<Memory>,
    /// What a scheduler has made of tasks.
    pub sched: Option<Spanned<SchedState>>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sent {
    /// A device, or of a map the entry.
    to: Value,
    how: Option<How>,
    data: Option<Spanned<String>>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum How {
    Redirect,
    Clone,
    Peer,
    Neigh,
    Map,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Records {
    map: Spanned<String>,
    /// The struct that a record is; without it records are in hexadecimal.
    r#type: Option<Spanned<String>>,
    records: Spanned<Vec<Value>>,
    dropped: Option<Spanned<u64>>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Memory {
    task: Option<Spanned<String>>,
    addr: Spanned<u64>,
    text: Option<Spanned<String>>,
    hex: Option<Spanned<String>>,
}

#[derive(Clone, Deserialize)]
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

pub(super) fn unmet<T>(span: Range<usize>, message: String) -> Result<T, Problem> {
    Err(Problem {
        span,
        message,
        wrong: false,
        failed: None,
    })
}

impl Expect {
    /// Holds it against a simulation.
    pub fn check(&self, sim: &Sim, bpf: &Ebpf, done: &Done, scene: &Scene) -> Result<(), Problem> {
        if let Some(want) = &self.returned {
            match done.output.as_ref().map(|o| o.return_value) {
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
        if let Some(state) = &self.sched {
            state.get_ref().check(state.span(), sim, scene)?;
        }
        for (name, want) in &self.globals {
            let got = show::global(bpf, name).map_err(failed(want.span()))?;
            check_value(|| name.clone(), &got, want)?;
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
        self.check_hooks(sim, done, scene)?;
        for records in &self.ringbuf {
            records.check(bpf)?;
        }
        for memory in &self.user {
            memory.check(sim, scene)?;
        }
        for (name, want) in &self.spawned {
            let results = scene
                .jobs
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

    fn check_hooks(&self, sim: &Sim, done: &Done, scene: &Scene) -> Result<(), Problem> {
        let fired = |span| match &done.fired {
            Some(fired) => Ok(fired),
            None => wrong(span, "no hook happened in this step"),
        };
        if let Some(want) = &self.result {
            let got = fired(want.span())?.result;
            if got != *want.get_ref() {
                let want_n = want.get_ref();
                return unmet(
                    want.span(),
                    format!("the hook gave {got}, expected {want_n}"),
                );
            }
        }
        if let Some(want) = &self.lines {
            let Some(text) = &done.text else {
                return wrong(want.span(), "no iterator was read in this step");
            };
            let got: Vec<&str> = text.lines().collect();
            let differs = |(got, want): (&&str, &String)| got != want;
            let all = want.get_ref();
            let at = got.iter().zip(all).position(differs);
            let at = at.or((got.len() != all.len()).then_some(got.len().min(all.len())));
            if let Some(at) = at {
                let said = |line: Option<&str>| line.map_or("nothing".into(), |l| format!("`{l}`"));
                let (got, want_line) = (
                    said(got.get(at).copied()),
                    said(all.get(at).map(String::as_str)),
                );
                return unmet(
                    want.span(),
                    format!("line {} is {got}, expected {want_line}", at + 1),
                );
            }
        }
        if let Some(want) = &self.ran {
            let runs = fired(want.span())?.runs.iter();
            let ran: Vec<&str> = runs
                .filter(|r| r.output.is_some())
                .map(|r| r.name.as_str())
                .collect();
            if ran != *want.get_ref() {
                let list = |names: &[&str]| match names {
                    [] => "nothing".to_string(),
                    names => names.join(", "),
                };
                let wanted: Vec<&str> = want.get_ref().iter().map(String::as_str).collect();
                let message = format!("ran {}, expected {}", list(&ran), list(&wanted));
                return unmet(want.span(), message);
            }
        }
        for (name, want) in &self.fired {
            let Some(job) = scene.fired.get(name) else {
                return wrong(want.span(), format!("no hook has the name `{name}`"));
            };
            match sim.fired(*job).map(|f| f.result) {
                None => return unmet(want.span(), format!("{name} has not happened")),
                Some(got) if got != *want.get_ref() => {
                    let message = format!("{name} gave {got}, expected {}", want.get_ref());
                    return unmet(want.span(), message);
                }
                Some(_) => {}
            }
        }
        if let Some(want) = &self.redirects {
            let got: Vec<&Redirect> = done.redirects().collect();
            let all = got.len() == want.get_ref().len();
            for (i, sent) in want.get_ref().iter().enumerate() {
                match got.get(i) {
                    Some(got) if sent.fits(got, scene)? => {}
                    Some(got) => {
                        let to = scene.netdev_name(got.to);
                        let message = format!("packet {} was sent to {to} by {:?}", i + 1, got.how);
                        return unmet(want.span(), message);
                    }
                    None => break,
                }
            }
            if !all {
                let message = format!(
                    "{} packets were sent, expected {}",
                    got.len(),
                    want.get_ref().len()
                );
                return unmet(want.span(), message);
            }
        }
        if let Some(want) = &self.data {
            let Some(got) = done.packet() else {
                return wrong(want.span(), "nothing ran in this step");
            };
            check_bytes("the packet", got, &unhex(want)?, want.span())?;
        }
        Ok(())
    }

    fn check_events(&self, sim: &Sim) -> Result<(), Problem> {
        if self.printk.is_empty() && self.callbacks.is_empty() {
            return Ok(());
        }
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

fn check_bytes(label: &str, got: &[u8], want: &[u8], span: Range<usize>) -> Result<(), Problem> {
    if got == want {
        return Ok(());
    }
    let hex = |bytes: &[u8]| {
        let bytes: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
        bytes.join(" ")
    };
    unmet(
        span,
        format!("{label} is {}, expected {}", hex(got), hex(want)),
    )
}

impl Sent {
    fn fits(&self, got: &Redirect, scene: &Scene) -> Result<bool, Problem> {
        let to = match &self.to {
            Value::Integer(n) => i64::from(got.to) == *n,
            Value::String(name) => scene.netdev_name(got.to) == *name,
            _ => false,
        };
        let how = matches!(
            (self.how, got.how),
            (None, _)
                | (Some(How::Redirect), RedirectKind::Redirect)
                | (Some(How::Clone), RedirectKind::Clone)
                | (Some(How::Peer), RedirectKind::Peer)
                | (Some(How::Neigh), RedirectKind::Neigh)
                | (Some(How::Map), RedirectKind::Map(_))
        );
        let data = self.data.as_ref().map(unhex).transpose()?;
        Ok(to && how && data.is_none_or(|data| data == got.data))
    }
}

impl Records {
    /// Takes the records out that there are, and holds them against those that are expected.
    fn check(&self, bpf: &Ebpf) -> Result<(), Problem> {
        let span = self.map.span();
        let name = self.map.get_ref();
        let map = bpf.map(name).map_err(failed(span.clone()))?;
        let ring: RingBuf<u8> = map.try_into().map_err(failed(span.clone()))?;
        let ty = match (&self.r#type, bpf.btf()) {
            (Some(ty), Some(btf)) => match btf.find(ty.get_ref(), Kind::Struct) {
                Some(id) => Some((btf, id)),
                None => {
                    return wrong(
                        ty.span(),
                        format!("the object has no struct {}", ty.get_ref()),
                    );
                }
            },
            (Some(ty), None) => return wrong(ty.span(), "the object has no types"),
            (None, _) => None,
        };
        let mut got = Vec::new();
        while let Some(record) = ring.next_bytes().map_err(failed(span.clone()))? {
            got.push(record);
        }
        let wanted = self.records.get_ref();
        for (i, (got, want)) in got.iter().zip(wanted).enumerate() {
            let label = format!("{name}: record {}", i + 1);
            match (&ty, want) {
                (Some((btf, id)), want) => {
                    let got = through_btf(btf, *id, got);
                    if let Some(message) = difference(&got, want) {
                        return unmet(self.records.span(), label + &message);
                    }
                }
                (None, Value::String(hex)) => {
                    let hex = Spanned::new(self.records.span(), hex.clone());
                    check_bytes(&label, got, &unhex(&hex)?, self.records.span())?;
                }
                (None, _) => {
                    return wrong(
                        self.records.span(),
                        "records without a type are in hexadecimal",
                    );
                }
            }
        }
        if got.len() != wanted.len() {
            let message = format!(
                "{name} has {} records, expected {}",
                got.len(),
                wanted.len()
            );
            return unmet(self.records.span(), message);
        }
        if let Some(want) = &self.dropped {
            let got = ring.dropped().map_err(failed(span))?;
            if got != *want.get_ref() {
                let message = format!("{name} dropped {got} records, expected {}", want.get_ref());
                return unmet(want.span(), message);
            }
        }
        Ok(())
    }
}

impl Memory {
    fn check(&self, sim: &Sim, scene: &Scene) -> Result<(), Problem> {
        let task = match &self.task {
            Some(name) => scene.task(sim, name)?,
            None => sim.main_task(),
        };
        let span = self.addr.span();
        let want = match (&self.text, &self.hex) {
            (Some(text), None) => text.get_ref().as_bytes().to_vec(),
            (None, Some(hex)) => unhex(hex)?,
            _ => return wrong(span, "user takes either text or hex"),
        };
        let addr = *self.addr.get_ref();
        match task.read_memory(sim, addr, want.len() as u64) {
            Some(got) => check_bytes(&format!("memory at {addr:#x}"), &got, &want, span),
            None => unmet(span, format!("nothing is at {addr:#x}")),
        }
    }
}

impl MapElement {
    fn check(&self, bpf: &Ebpf) -> Result<(), Problem> {
        let name = self.map.get_ref();
        let map = bpf.map(name).map_err(failed(self.map.span()))?;
        let key = value::key(&map, &self.key)?;
        let found = map.lookup(&key).map_err(failed(self.map.span()))?;
        let spec = map.spec();
        let label = || {
            let key = timeline::typed(&spec, true, &key);
            format!("{name}[{}]", show::unnamed(&key))
        };
        match (found, &self.value) {
            (Some(_), _) if self.absent => unmet(self.key.span(), format!("{} exists", label())),
            (None, _) if self.absent => Ok(()),
            (None, _) => unmet(self.key.span(), format!("{} does not exist", label())),
            (Some(bytes), Some(want)) => {
                check_value(label, &timeline::typed(&spec, false, &bytes), want)
            }
            (Some(_), None) => Ok(()),
        }
    }
}

/// R0 may be written signed or unsigned.
fn same_u32(got: u32, want: i64) -> bool {
    i64::from(got) == want || i64::from(got as i32) == want
}

fn check_value(
    label: impl FnOnce() -> String,
    got: &serde_json::Value,
    want: &Spanned<Value>,
) -> Result<(), Problem> {
    match difference(got, want.get_ref()) {
        None => Ok(()),
        Some(message) => unmet(want.span(), label() + &message),
    }
}

/// Where a value is not as expected, to be read after its name. Members that are not named do not matter.
fn difference(got: &serde_json::Value, want: &Value) -> Option<String> {
    use serde_json::Value as J;
    let differs = || Some(format!(" is {}, expected {want}", show::compact(got)));
    match (got, want) {
        (J::Object(members), Value::Table(wanted)) => {
            wanted
                .iter()
                .find_map(|(name, want)| match members.get(name) {
                    Some(got) => difference(got, want).map(|d| format!(".{name}{d}")),
                    None => Some(format!(".{name}: there is no such member")),
                })
        }
        (J::Array(items), Value::Array(wanted)) => {
            if items.len() < wanted.len() {
                return differs();
            }
            let mut each = items.iter().zip(wanted).enumerate();
            each.find_map(|(i, (got, want))| difference(got, want).map(|d| format!("[{i}]{d}")))
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
