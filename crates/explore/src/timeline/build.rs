//! From a kernel to a [`Timeline`].

use super::{Change, Kind, Lane, Line, Source, Step, Timeline, text::time, value};
use bpfsim_kernel::{
    AsyncKind, BOOTED, CtxId, Did, Element, Event, FailureKind, Kernel, Level, MapSpec, Moment,
    Place, ProgId, What,
};
use bpfsim_vm::AccessKind;
use std::collections::{BTreeMap, HashMap};

impl Timeline {
    /// What happened in a kernel so far, and how it failed.
    pub fn new(kernel: &Kernel, title: &str, failure: Option<&str>) -> Timeline {
        let mut build = Build {
            kernel,
            timeline: Timeline {
                title: title.to_string(),
                failure: failure.map(str::to_string),
                ..Timeline::default()
            },
            names: HashMap::from([(CtxId::USER, USER.to_string())]),
            armed: HashMap::new(),
            accesses: Vec::new(),
        };
        let moments = kernel.moments();
        if moments.is_empty() {
            for event in kernel.trace().events() {
                build.event(event, None);
            }
        }
        for moment in moments {
            build.moment(moment);
        }
        build.races();
        build.sources(moments);
        build.values();
        build.timeline
    }
}

/// Who executes where no program does.
const USER: &str = "user space";

/// An access, or a call that may make one.
struct Access {
    step: usize,
    ctx: CtxId,
    /// Its instruction; none in user space.
    insn: Option<u32>,
    /// Its bytes; of a call they are not known.
    range: Option<(u64, u64)>,
}

struct Build<'a> {
    kernel: &'a Kernel,
    timeline: Timeline,
    /// What executes in each context.
    names: HashMap<CtxId, String>,
    /// The step that last asked for a callback.
    armed: HashMap<(AsyncKind, Element), usize>,
    accesses: Vec<Access>,
}

impl Build<'_> {
    fn spec(&self, element: &Element) -> &MapSpec {
        self.kernel.map_spec(element.map)
    }

    fn element(&self, e: &Element) -> String {
        self.spec(e).element_text(Some(&e.key))
    }

    fn lane(&mut self, cpu: u32, level: Level) -> usize {
        let lane = Lane {
            cpu,
            level: level.name(),
        };
        let lanes = &mut self.timeline.lanes;
        lanes.iter().position(|l| *l == lane).unwrap_or_else(|| {
            lanes.push(lane);
            lanes.len() - 1
        })
    }

    fn line(&self, insn: Option<(ProgId, u32)>) -> Option<Line> {
        let (prog, insn) = insn?;
        let place = self.kernel.place(prog, insn);
        let (file, line, text) = place.line?;
        Some(Line {
            file: plain(&file),
            line,
            text: text.trim().to_string(),
            function: place.function,
        })
    }

    /// Adds a step; of what is given by an event all but its text is the same.
    #[allow(clippy::too_many_arguments, reason = "one place makes steps")]
    fn push(
        &mut self,
        at: u64,
        cpu: u32,
        level: Level,
        ctx: CtxId,
        insn: Option<(ProgId, u32)>,
        kind: Kind,
        text: String,
    ) -> &mut Step {
        let step = Step {
            at: at.saturating_sub(BOOTED),
            lane: self.lane(cpu, level),
            ctx: ctx.to_string(),
            who: self.names.get(&ctx).map_or(USER, |n| n).to_string(),
            kind,
            text,
            line: self.line(insn),
            change: None,
            armed_by: None,
            races: Vec::new(),
        };
        let steps = &mut self.timeline.steps;
        steps.push(step);
        let last = steps.len() - 1;
        &mut steps[last]
    }

    fn event(&mut self, event: &Event, insn: Option<(ProgId, u32)>) {
        let mut armed_by = None;
        let (kind, text) = match &event.what {
            What::ProgramStart { name } => {
                self.names.insert(event.ctx, name.to_string());
                (Kind::Begin, format!("{name} begins"))
            }
            What::ProgramEnd { name, return_value } => {
                (Kind::End, format!("{name} returns {return_value}"))
            }
            What::CallbackStart {
                kind,
                name,
                element,
            } => {
                self.names.insert(event.ctx, name.to_string());
                armed_by = self.armed.remove(&(*kind, element.clone()));
                let of = self.element(element);
                (
                    Kind::Begin,
                    format!("{name} begins: {} of {of}", kind.name()),
                )
            }
            What::CallbackEnd {
                name, return_value, ..
            } => (Kind::End, format!("{name} returns {return_value}")),
            What::Armed { kind, element, due } => {
                let step = self.timeline.steps.len();
                self.armed.insert((*kind, element.clone()), step);
                let of = self.element(element);
                let text = match kind {
                    AsyncKind::Timer => {
                        let due = time(due.saturating_sub(BOOTED));
                        format!("timer of {of} armed for {due}")
                    }
                    kind => format!("{} of {of} queued", kind.name()),
                };
                (Kind::Armed, text)
            }
            What::Disarmed { kind, element } => {
                self.armed.remove(&(*kind, element.clone()));
                let of = self.element(element);
                (Kind::Disarmed, format!("{} of {of} cancelled", kind.name()))
            }
            What::Chance { call, chance } => (Kind::Chance, format!("{call} {chance}")),
            What::Printk { text } => (Kind::Printk, format!("printk: {text}")),
        };
        let (at, cpu, level, ctx) = (event.at, event.cpu.0, event.level, event.ctx);
        self.push(at, cpu, level, ctx, insn, kind, text).armed_by = armed_by;
    }

    fn moment(&mut self, m: &Moment) {
        match &m.did {
            Did::Event(index) => {
                if let Some(event) = self.kernel.trace().events().get(*index) {
                    let starts = matches!(
                        event.what,
                        What::ProgramStart { .. } | What::CallbackStart { .. }
                    );
                    self.event(event, m.insn.filter(|_| !starts));
                }
            }
            Did::Access {
                kind,
                addr,
                size,
                element,
                before,
                after,
            } => {
                let of = match element {
                    Some((e, Some(at))) => self.spec(e).part(Some(&e.key), *at, u32::from(*size)),
                    Some((e, None)) => format!("key of {}", self.element(e)),
                    None => format!("{addr:#x}"),
                };
                let (kind_of, text) = match kind {
                    AccessKind::Read => (Kind::Read, format!("reads {of}: {before}")),
                    AccessKind::Write => (Kind::Write, format!("writes {of}: {before} -> {after}")),
                    AccessKind::Rmw if before == after => {
                        (Kind::Atomic, format!("atomically, {of}: {before}"))
                    }
                    AccessKind::Rmw => (
                        Kind::Atomic,
                        format!("atomically, {of}: {before} -> {after}"),
                    ),
                };
                self.accesses.push(Access {
                    step: self.timeline.steps.len(),
                    ctx: m.ctx,
                    insn: m.insn.map(|(_, insn)| insn),
                    range: Some((*addr, addr.saturating_add(u64::from(*size)))),
                });
                self.push(m.at, m.cpu.0, m.level, m.ctx, m.insn, kind_of, text);
            }
            Did::Call {
                name,
                element,
                result,
            } => {
                let of = element.as_ref().map(|e| {
                    let spec = self.spec(e);
                    match spec.key_size as usize == e.key.len() && !e.key.is_empty() {
                        true => self.element(e),
                        false => spec.name.clone(),
                    }
                });
                let of = of.unwrap_or_default();
                let text = format!("{name}({of}) = {}", answer(*result));
                self.accesses.push(Access {
                    step: self.timeline.steps.len(),
                    ctx: m.ctx,
                    insn: m.insn.map(|(_, insn)| insn),
                    range: None,
                });
                self.push(m.at, m.cpu.0, m.level, m.ctx, m.insn, Kind::Call, text);
            }
            Did::Changed { element, old, new } => self.changed(m, element, old, new),
        }
    }

    fn changed(
        &mut self,
        m: &Moment,
        element: &Element,
        old: &Option<Vec<u8>>,
        new: &Option<Vec<u8>>,
    ) {
        let spec = self.spec(element);
        let changes: Vec<Change> = match (old, new, value::is_section(spec)) {
            (Some(old), Some(new), true) => value::changed_variables(spec, old, new)
                .into_iter()
                .map(|(element, old, new)| Change {
                    element,
                    old: Some(old),
                    new: Some(new),
                })
                .collect(),
            _ => {
                let show =
                    |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|b| value::value_text(spec, b));
                vec![Change {
                    element: self.element(element),
                    old: show(old),
                    new: show(new),
                }]
            }
        };
        for change in changes {
            // A slot of a timer or the like, whose bytes say nothing.
            if change.old == change.new {
                continue;
            }
            let text = match (&change.old, &change.new) {
                (None, Some(new)) => format!("new {} = {new}", change.element),
                (Some(_), None) => format!("{} is gone", change.element),
                (_, new) => {
                    let new = new.as_deref().unwrap_or_default();
                    format!("now {} = {new}", change.element)
                }
            };
            let step = self.push(m.at, m.cpu.0, m.level, m.ctx, m.insn, Kind::Changed, text);
            step.change = Some(change);
        }
    }

    /// Marks the two accesses of each race and of each lost update that the detectors found: the
    /// first such pair.
    fn races(&mut self) {
        let mut pairs: Vec<[usize; 2]> = Vec::new();
        for found in self.kernel.warnings() {
            let access = match &found.kind {
                FailureKind::DataRace { access, .. } | FailureKind::LostUpdate(access) => *access,
                _ => continue,
            };
            let (Some((_, late)), Some(early)) = (found.who, &found.other) else {
                continue;
            };
            let end = access.addr.saturating_add(access.size.into());
            let is = |a: &&Access, ctx: CtxId, place: Option<&Place>| {
                let there = a
                    .range
                    .is_none_or(|(from, to)| from < end && access.addr < to);
                there && a.ctx == ctx && a.insn == place.map(|p| p.insn)
            };
            let of_late = |a: &&Access| is(a, late, found.place.as_deref());
            let of_early = |a: &&Access| is(a, early.who.1, early.place.as_ref());
            let mut pair = self.accesses.iter().enumerate().filter(|(_, b)| of_late(b));
            let pair = pair.find_map(|(i, b)| {
                let a = self.accesses[..i].iter().rev().find(of_early)?;
                Some([a.step, b.step])
            });
            // A lost update is a race, too.
            let Some(pair) = pair.filter(|pair| !pairs.contains(pair)) else {
                continue;
            };
            pairs.push(pair);
            for step in pair {
                self.timeline.steps[step].races.push(pairs.len());
            }
        }
    }

    /// The lines of the programs that executed.
    fn sources(&mut self, moments: &[Moment]) {
        let mut progs: Vec<ProgId> = moments.iter().filter_map(|m| Some(m.insn?.0)).collect();
        progs.sort();
        progs.dedup();
        let mut files: BTreeMap<String, BTreeMap<u32, String>> = BTreeMap::new();
        for prog in progs {
            let Some(code) = self.kernel.prog_lines(prog) else {
                continue;
            };
            for line in code.lines.iter() {
                let lines = files.entry(plain(line.file)).or_default();
                lines.insert(line.line, line.text.trim_end().to_string());
            }
        }
        let source = |(file, lines): (_, BTreeMap<_, _>)| Source {
            file,
            lines: lines.into_iter().collect(),
        };
        self.timeline.sources = files.into_iter().map(source).collect();
    }

    /// What changes had been before the first of them.
    fn values(&mut self) {
        let mut first = BTreeMap::new();
        for change in self.timeline.steps.iter().filter_map(|s| s.change.as_ref()) {
            first
                .entry(change.element.clone())
                .or_insert_with(|| change.old.clone());
        }
        let there = first
            .into_iter()
            .filter_map(|(element, old)| Some((element, old?)));
        self.timeline.values = there.collect();
    }
}

/// A file's name without what says that it was the compiler's folder.
fn plain(file: &str) -> String {
    file.trim_start_matches("./").to_string()
}

/// R0 as C would have it: an error by its number, an address as such.
fn answer(result: Option<u64>) -> String {
    match result {
        None => "...".to_string(),
        Some(r0) if r0 as i64 >= -4096 && (r0 as i64) < 1 << 32 => (r0 as i64).to_string(),
        Some(_) => "address".to_string(),
    }
}
