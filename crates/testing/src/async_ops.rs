//! Sequences of calls on timers, works and task works, with updates, deletes and closes between
//! them: what fixtures/async_ops.bpf.c executes, on Linux and on bpfsim.
//!
//! A [`Sequence`] is made of steps; a [`Machine`] carries one out, lets everything run that it
//! left behind, and says what came of it.

use serde::{Deserialize, Serialize};

/// Maps of the fixture, by the number that operations give.
pub const MAPS: [&str; 4] = ["array", "hash", "sparse", "recent"];
/// Operations that a program can execute at once.
pub const MAX_OPS: usize = 64;
/// Operations of a callback's script.
pub const SCRIPT_LEN: usize = 8;
/// Sequences of each kind that are recorded.
pub const RECORDED: u64 = 100;
/// Sequences that one machine runs, one after another, before it is made anew.
pub const A_MACHINE: u64 = 25;
/// Nanoseconds that no test waits for.
pub const FAR: u64 = 3_600_000_000_000;
/// Bytes of a value.
pub const VALUE_SIZE: usize = 64;

/// What an operation does: `enum code` of the fixture.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[repr(u8)]
#[allow(missing_docs)] // named after the calls
pub enum Code {
    None = 0,
    Update,
    Delete,
    TimerInit,
    TimerSetCallback,
    TimerStart,
    TimerCancel,
    WqInit,
    WqSetCallback,
    WqStart,
    TaskWork,
    Wait,
    SetFlag,
    Spin,
    Pid,
    Cpu,
    Read,
    OwnStart,
    OwnCancel,
    OwnInit,
    OwnSetCallback,
    OwnSchedule,
    OwnKey,
    OwnRead,
}

/// One operation: `struct op` of the fixture.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize)]
pub struct Op {
    /// What.
    pub code: Code,
    /// Number in [`MAPS`].
    pub map: u8,
    /// Key of the element.
    pub key: u8,
    /// Which callback, or which flag.
    pub which: u8,
    /// Flags of the call; of task work, whether it is to signal.
    pub flags: u32,
    /// Time, value or rounds.
    pub arg: u64,
}

impl Op {
    /// On the element of a key in a map.
    pub const fn on(code: Code, map: u8, key: u8) -> Op {
        Op {
            code,
            map,
            key,
            which: 0,
            flags: 0,
            arg: 0,
        }
    }

    /// With that callback or flag.
    #[must_use]
    pub const fn which(self, which: u8) -> Op {
        Op { which, ..self }
    }

    /// With flags.
    #[must_use]
    pub const fn flags(self, flags: u32) -> Op {
        Op { flags, ..self }
    }

    /// With that argument.
    #[must_use]
    pub const fn arg(self, arg: u64) -> Op {
        Op { arg, ..self }
    }

    /// As in memory.
    pub fn bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&[self.code as u8, self.map, self.key, self.which]);
        bytes[4..8].copy_from_slice(&self.flags.to_le_bytes());
        bytes[8..].copy_from_slice(&self.arg.to_le_bytes());
        bytes
    }
}

/// The variable `ops`: those of programs, then each script's.
pub fn ops_bytes(ops: &[Op], scripts: &[(usize, Vec<Op>)]) -> Vec<u8> {
    let mut bytes = vec![0; 2 * MAX_OPS * 16];
    let mut put = |at: usize, op: &Op| bytes[at * 16..][..16].copy_from_slice(&op.bytes());
    for (i, op) in ops.iter().take(MAX_OPS).enumerate() {
        put(i, op);
    }
    for (script, ops) in scripts {
        for (i, op) in ops.iter().take(SCRIPT_LEN).enumerate() {
            put(MAX_OPS + script * SCRIPT_LEN + i, op);
        }
    }
    bytes
}

/// One line of the fixture's record: who (0 a program, 1 + script a callback, 100 one without
/// script), what (0: a callback began), and the answer (of a callback that began, its key).
pub type Entry = (u32, u32, i64);

/// Entries of the variable `entries`.
pub fn parse_entries(bytes: &[u8], count: u32) -> Vec<Entry> {
    let word = |b: &[u8]| u32::from_le_bytes(b.try_into().unwrap_or_default());
    let entries = bytes.chunks_exact(16).take(count as usize);
    let entry = |e: &[u8]| {
        let answer = i64::from_le_bytes(e[8..].try_into().unwrap_or_default());
        (word(&e[..4]), word(&e[4..8]), answer)
    };
    entries.map(entry).collect()
}

/// One step of user space.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[allow(missing_docs)] // named after the commands of bpf(2)
pub enum Step {
    /// `BPF_PROG_TEST_RUN`: of the packet program, or of the syscall program.
    Run {
        tc: bool,
        ops: Vec<Op>,
    },
    Update {
        map: u8,
        key: u8,
        flags: u64,
    },
    Delete {
        map: u8,
        key: u8,
    },
    LookupDelete {
        map: u8,
        key: u8,
    },
    /// The map's only descriptor.
    Close {
        map: u8,
    },
    /// By its id.
    Open {
        map: u8,
    },
}

/// What came of a step: errno or 0, and what was recorded until nothing was left to run.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
pub struct Outcome {
    /// Of the system call.
    pub errno: u16,
    /// Of programs and callbacks.
    pub entries: Vec<Entry>,
}

impl Outcome {
    /// `-ENOMEM` from a call: its allocation may not wait, and a busy machine has none at times.
    fn lacked_memory(&self) -> bool {
        self.entries.iter().any(|&(_, _, value)| value == -12)
    }
}

/// Something that has loaded the fixture.
pub trait Machine {
    /// Why it cannot go on.
    type Error: std::fmt::Debug;

    /// Sets the scripts of callbacks; the record is empty.
    fn scripts(&mut self, scripts: &[(usize, Vec<Op>)]) -> Result<(), Self::Error>;

    /// Carries out a step, and all that it leaves behind.
    fn step(&mut self, step: &Step) -> Result<Outcome, Self::Error>;
}

/// What was recorded: for each kind the outcomes of its first [`RECORDED`] sequences.
pub type Recorded = Vec<(Kind, Vec<Vec<Outcome>>)>;

/// Runs the first sequences of a kind, each machine as many as [`A_MACHINE`] says. What a busy kernel
/// had no memory for at the moment is asked again.
///
/// # Errors
/// The first of a machine.
pub fn run_all<M: Machine>(
    kind: Kind,
    count: u64,
    mut make: impl FnMut() -> Result<M, M::Error>,
) -> Result<Vec<Vec<Outcome>>, M::Error> {
    let mut machine = make()?;
    (0..count)
        .map(|number| {
            if number > 0 && number % A_MACHINE == 0 {
                machine = make()?;
            }
            let sequence = Sequence::random(kind, number);
            let mut outcomes = sequence.run(&mut machine)?;
            for _ in 0..5 {
                if !outcomes.iter().any(Outcome::lacked_memory) {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(200));
                machine = make()?;
                outcomes = sequence.run(&mut machine)?;
            }
            Ok(outcomes)
        })
        .collect()
}

/// What kind of slot a sequence is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[allow(missing_docs)]
pub enum Kind {
    Timer,
    Wq,
    TaskWork,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 3] = [Kind::Timer, Kind::Wq, Kind::TaskWork];
}

/// A sequence of steps.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
pub struct Sequence {
    /// Number of the script, and its operations.
    pub scripts: Vec<(usize, Vec<Op>)>,
    /// In order.
    pub steps: Vec<Step>,
}

impl Sequence {
    /// Runs it on a machine that has loaded the fixture anew.
    ///
    /// # Errors
    /// The machine's.
    pub fn run<M: Machine>(&self, machine: &mut M) -> Result<Vec<Outcome>, M::Error> {
        machine.scripts(&self.scripts)?;
        self.steps.iter().map(|step| machine.step(step)).collect()
    }

    /// The sequence of a number: equal numbers give equal ones.
    pub fn random(kind: Kind, number: u64) -> Sequence {
        let mut r = Rng(number.wrapping_mul(3) + kind as u64 + 1);
        let scripts = (0..7)
            .filter(|&s| of_kind(kind, s))
            .map(|s| {
                (
                    s,
                    (0..r.below(4)).map(|_| script_op(kind, &mut r)).collect(),
                )
            })
            .collect();
        let mut open = [true; 4];
        let mut steps = Vec::new();
        for _ in 0..2 + r.below(7) {
            steps.push(step(kind, &mut r, &mut open));
        }
        // What is left would be the next sequence's.
        for map in 0..4 {
            if !open[map as usize] {
                steps.push(Step::Open { map });
            }
            steps.extend((0..3).map(|key| match map {
                0 => Step::Update { map, key, flags: 0 },
                _ => Step::Delete { map, key },
            }));
        }
        Sequence { scripts, steps }
    }
}

/// Scripts of the fixture by kind of callback: three of timers, two of works, two of task works.
fn of_kind(kind: Kind, script: usize) -> bool {
    match kind {
        Kind::Timer => script < 3,
        Kind::Wq => (3..5).contains(&script),
        Kind::TaskWork => script >= 5,
    }
}

/// `splitmix64`
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        ((self.next() >> 32) * n) >> 32
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

fn place(r: &mut Rng) -> (u8, u8) {
    (r.below(4) as u8, r.below(3) as u8)
}

fn step(kind: Kind, r: &mut Rng, open: &mut [bool; 4]) -> Step {
    let (map, key) = place(r);
    let is_open = &mut open[map as usize];
    match r.below(12) {
        0 if *is_open => Step::Update {
            map,
            key,
            flags: r.below(3),
        },
        1 if *is_open => Step::Delete { map, key },
        2 if *is_open => Step::LookupDelete { map, key },
        3 if *is_open => {
            *is_open = false;
            Step::Close { map }
        }
        3 | 4 if !*is_open => {
            *is_open = true;
            Step::Open { map }
        }
        _ => {
            // A timer that is due at once comes over a syscall program whenever the hardware
            // pleases.
            let tc = kind == Kind::Timer || r.one_in(2);
            let n = 1 + r.below(14);
            let (map, key) = place(r);
            let mut ops: Vec<Op> = (0..n)
                .map(|_| match r.below(3) {
                    0 => {
                        let (map, key) = place(r);
                        program_op(kind, r, map, key)
                    }
                    _ => program_op(kind, r, map, key),
                })
                .collect();
            if r.one_in(2) {
                // What most often has consequences.
                let all = armed(kind, r, map, key);
                let at = r.below(ops.len() as u64 + 1) as usize;
                ops.splice(at..at, all);
            }
            Step::Run { tc, ops }
        }
    }
}

/// Makes an element with something pending.
fn armed(kind: Kind, r: &mut Rng, map: u8, key: u8) -> Vec<Op> {
    let on = |code| Op::on(code, map, key);
    let which = r.below(3) as u8;
    let update = on(Code::Update).arg(r.below(100));
    match kind {
        Kind::Timer => vec![
            update,
            on(Code::TimerInit).flags(1),
            on(Code::TimerSetCallback).which(which),
            on(Code::TimerStart).arg(delay(r)),
        ],
        Kind::Wq => vec![
            update,
            on(Code::WqInit),
            on(Code::WqSetCallback).which(which),
            on(Code::WqStart),
        ],
        Kind::TaskWork => vec![update, on(Code::TaskWork).which(which)],
    }
}

fn delay(r: &mut Rng) -> u64 {
    r.pick(&[0, 0, 0, FAR, 1 << 63])
}

fn program_op(kind: Kind, r: &mut Rng, map: u8, key: u8) -> Op {
    let on = |code| Op::on(code, map, key);
    match r.below(4) {
        0 => match r.below(4) {
            0 => on(Code::Delete),
            1 => on(Code::Read),
            2 => on(Code::Update).flags(r.below(3) as u32).arg(r.below(100)),
            _ => on(Code::Update).arg(r.below(100)),
        },
        _ => kind_op(kind, r).at(map, key),
    }
}

impl Op {
    fn at(self, map: u8, key: u8) -> Op {
        Op { map, key, ..self }
    }
}

fn kind_op(kind: Kind, r: &mut Rng) -> Op {
    let on = |code| Op::on(code, 0, 0);
    let which = r.below(3) as u8;
    match kind {
        Kind::Timer => match r.below(6) {
            0 => on(Code::TimerInit).flags(r.pick(&[0, 1, 1, 1, 7, 2, 16])),
            1 | 2 => on(Code::TimerSetCallback).which(which),
            3 => on(Code::TimerCancel),
            _ => on(Code::TimerStart)
                .arg(delay(r))
                .flags(r.pick(&[0, 0, 0, 2, 4])),
        },
        Kind::Wq => {
            let flags = r.pick(&[0, 0, 0, 0, 0, 1]);
            match r.below(4) {
                0 => on(Code::WqInit).flags(flags),
                1 => on(Code::WqSetCallback).which(which).flags(flags),
                _ => on(Code::WqStart).flags(flags),
            }
        }
        Kind::TaskWork => on(Code::TaskWork).which(which).flags(r.below(2) as u32),
    }
}

fn script_op(kind: Kind, r: &mut Rng) -> Op {
    let (map, key) = place(r);
    let own = |code| Op::on(code, 0, 0);
    match (kind, r.below(10)) {
        (_, 0) => own(Code::OwnKey),
        (_, 1) => own(Code::OwnRead),
        (Kind::TaskWork, 2) => own(Code::OwnSchedule),
        // Nor may callbacks schedule each other: the kernel would never return.
        (Kind::TaskWork, _) => match program_op(kind, r, map, key) {
            op if op.code == Code::TaskWork => Op::on(Code::Delete, map, key),
            op => op,
        },
        // Started at once by its own callback it would run for ever.
        (Kind::Timer, 2) => own(Code::OwnStart).arg(FAR),
        (Kind::Timer, 3) => own(Code::OwnCancel),
        (Kind::Timer, 4) => own(Code::OwnInit).flags(1),
        (Kind::Wq, 2) => own(Code::OwnInit),
        (_, 5) => own(Code::OwnSetCallback),
        (Kind::Wq, 6) => Op::on(Code::Delete, map, key),
        _ => match program_op(kind, r, map, key) {
            // Nor may callbacks start each other without end.
            op if op.code == Code::TimerStart => op.arg(FAR),
            op if op.code == Code::WqStart => Op::on(Code::Read, map, key),
            op => op,
        },
    }
}
