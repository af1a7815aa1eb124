//! What happened, in the order in which it happened.

use crate::chance::Chance;
use crate::ids::{Cpu, CtxId, MapId, mix};
use crate::log::{Log, LogMark};
use bpfsim_vm::{Access, AccessKind};
use smallvec::SmallVec;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// The kind of context that executes, by what may interrupt what (lowest first).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Level {
    /// A task: a system call, a kworker, task work.
    Task,
    /// A soft interrupt.
    Softirq,
    /// A hard interrupt.
    Hardirq,
    /// A non-maskable interrupt.
    Nmi,
}

impl Level {
    /// As printed.
    pub fn name(self) -> &'static str {
        match self {
            Level::Task => "task",
            Level::Softirq => "softirq",
            Level::Hardirq => "hardirq",
            Level::Nmi => "nmi",
        }
    }
}

/// The kinds of asynchronous callback.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum AsyncKind {
    /// `bpf_timer`
    Timer,
    /// `bpf_wq`
    Wq,
    /// `bpf_task_work`
    TaskWork,
}

impl AsyncKind {
    /// As printed, and as in `--json`.
    pub fn name(self) -> &'static str {
        match self {
            AsyncKind::Timer => "timer",
            AsyncKind::Wq => "wq",
            AsyncKind::TaskWork => "task_work",
        }
    }
}

/// The name of a program or of a function in it; clones are one text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Name {
    fn from(name: &str) -> Name {
        Name(name.into())
    }
}

impl PartialEq<str> for Name {
    fn eq(&self, other: &str) -> bool {
        *self.0 == *other
    }
}

impl PartialEq<&str> for Name {
    fn eq(&self, other: &&str) -> bool {
        *self.0 == **other
    }
}

impl PartialEq<String> for Name {
    fn eq(&self, other: &String) -> bool {
        *self.0 == **other
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// A map element.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Element {
    /// Its map.
    pub map: MapId,
    /// Its key, as it was when the event happened.
    pub key: SmallVec<[u8; 16]>,
}

/// One thing that happened.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum What {
    /// A program began.
    ProgramStart {
        /// Its name.
        name: Name,
    },
    /// A program returned.
    ProgramEnd {
        /// Its name.
        name: Name,
        /// R0.
        return_value: u32,
    },
    /// A callback began.
    CallbackStart {
        /// Which kind.
        kind: AsyncKind,
        /// Name of the function.
        name: Name,
        /// The element that holds the timer, work or task work.
        element: Element,
    },
    /// A callback returned.
    CallbackEnd {
        /// Which kind.
        kind: AsyncKind,
        /// Name of the function.
        name: Name,
        /// The element.
        element: Element,
        /// R0.
        return_value: u32,
    },
    /// A timer was started, a work item queued, task work scheduled.
    Armed {
        /// Which kind.
        kind: AsyncKind,
        /// The element.
        element: Element,
        /// When it is due; of works and task work, now.
        due: u64,
    },
    /// What was armed will not run: cancelled, or its element is gone.
    Disarmed {
        /// Which kind.
        kind: AsyncKind,
        /// The element.
        element: Element,
    },
    /// A call comes out as it usually does not.
    Chance {
        /// The helper or kfunc.
        call: &'static str,
        /// How.
        chance: Chance,
    },
    /// `bpf_trace_printk` and its relatives.
    Printk {
        /// The text, without the end of the line.
        text: String,
    },
}

/// Something that happened, with when, where and in which execution.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Event {
    /// Virtual time in ns.
    pub at: u64,
    /// The CPU.
    pub cpu: Cpu,
    /// The execution.
    pub ctx: CtxId,
    /// What kind of context that was.
    pub level: Level,
    /// What happened.
    pub what: What,
}

/// All events, and a hash over them and over every visible operation in between.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    events: Log<Event>,
    hash: u64,
}

/// A trace as it was at one moment, for [`Trace::restore`].
#[derive(Clone, Default)]
pub(crate) struct TraceMark {
    hash: u64,
    events: LogMark<Event>,
}

impl TraceMark {
    /// [`Trace::hash`] then.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// As [`LogMark::let_go`].
    pub fn let_go(&mut self) {
        self.events.let_go();
    }
}

impl Trace {
    /// The events so far.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Equal for equal orders of visible operations with equal results.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// As [`Log::mark_beside`].
    pub(crate) fn mark_beside(&mut self) -> TraceMark {
        TraceMark {
            hash: self.hash,
            events: self.events.mark_beside(),
        }
    }

    /// Marks what the trace is now, in the place of an older mark.
    pub(crate) fn mark_in(&mut self, old: &mut TraceMark) {
        old.hash = self.hash;
        self.events.mark_in(&mut old.events);
    }

    /// Goes back, or on, to what the trace was when it was marked.
    pub(crate) fn restore(&mut self, mark: &TraceMark) {
        self.hash = mark.hash;
        self.events.restore(&mark.events);
    }

    #[inline]
    pub(crate) fn push(&mut self, event: Event) {
        self.word(event.at);
        self.word(event.ctx.0 ^ event.cpu.0 as u64);
        match &event.what {
            What::ProgramStart { .. } => self.word(1),
            What::ProgramEnd { return_value, .. } => self.word(2 | (*return_value as u64) << 8),
            What::CallbackStart { kind, element, .. } => self.element(3, *kind, element),
            What::CallbackEnd {
                kind,
                element,
                return_value,
                ..
            } => {
                self.element(4, *kind, element);
                self.word(*return_value as u64);
            }
            What::Armed { kind, element, due } => {
                self.element(5, *kind, element);
                self.word(*due);
            }
            What::Disarmed { kind, element } => self.element(6, *kind, element),
            What::Chance { chance, .. } => self.word(8 | chance.word() << 8),
            What::Printk { text } => {
                self.word(7);
                self.bytes(text.as_bytes());
            }
        }
        self.events.push(event);
    }

    fn element(&mut self, tag: u64, kind: AsyncKind, element: &Element) {
        self.word(tag | (kind as u64) << 8 | (element.map.0 as u64) << 16);
        self.bytes(&element.key);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
    }

    /// A visible access of an explored run, with the bytes it met.
    pub(crate) fn access(&mut self, ctx: CtxId, access: Access, value: u64) {
        let kind = match access.kind {
            AccessKind::Read => 1,
            AccessKind::Write => 2,
            AccessKind::Rmw => 3,
        };
        // Side by side: this is what most steps do.
        let what = access.addr ^ kind << 56 ^ (access.size as u64) << 60;
        let what = what.wrapping_mul(0xff51_afd7_ed55_8ccd).rotate_left(32);
        let value = value.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        self.word(ctx.0 ^ what ^ value);
    }

    /// What was picked. Nearly every step is: it is mixed with what the step then does.
    #[inline]
    pub(crate) fn pick(&mut self, picked: usize) {
        let hash = self.hash.wrapping_mul(0x2545_f491_4f6c_dd1d);
        self.hash = hash.wrapping_add(picked as u64 + 1);
    }

    fn word(&mut self, word: u64) {
        self.hash = mix(self.hash, word);
    }
}
