//! Small random programs for `fixtures/small_worlds.bpf.c`, each about one thing that more than one
//! kind of execution has a part in: few enough steps that every order of them can be enumerated.

use crate::small_orders::{Rng, SCRIPT_LEN, SCRIPTS, Scripts, code_of};

/// One program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmallWorld {
    /// What it is about.
    pub theme: Theme,
    /// The fixture's `scripts`.
    pub scripts: Scripts,
    /// CPUs.
    pub cpus: u32,
    /// Tasks that execute a script, and their CPUs.
    pub begun: Vec<(u32, u32)>,
    /// Tasks that make system calls, and their CPUs.
    pub users: Vec<(u32, Vec<UserCall>)>,
    /// Interrupts.
    pub interrupts: Vec<Interrupt>,
    /// Tasks give way to others at any time.
    pub full: bool,
    /// How long it takes to bring in a page of user memory, in ns.
    pub page_in: u64,
    /// How early timers may be, in ns.
    pub horizon: u64,
    /// Virtual time that passes after them, in ns.
    pub passes: u64,
}

/// What a program is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Theme {
    /// Programs and callbacks that sleep.
    Sleep,
    /// Task work, also from a third CPU.
    TaskWork,
    /// Interrupts over what runs below.
    Interrupts,
    /// Tasks that give way at any time.
    Preemption,
    /// System calls beside callbacks.
    Users,
    /// Per-CPU maps.
    PerCpu,
    /// Objects that change hands.
    Objects,
    /// Locks in locks, and locks that fail.
    Locks,
    /// Elements that are used again.
    Slots,
    /// Rings that fill up, and callbacks of helpers.
    Loops,
}

/// All themes, and what scripts of it do, by how often.
pub const THEMES: [(Theme, &[(u8, u32)]); 10] = [
    (
        Theme::Sleep,
        &[(14, 6), (9, 5), (1, 2), (3, 2), (4, 2), (7, 1)],
    ),
    (
        Theme::TaskWork,
        &[(15, 4), (16, 4), (17, 1), (3, 2), (4, 2), (14, 1)],
    ),
    (
        Theme::Interrupts,
        &[(37, 3), (1, 3), (3, 2), (6, 2), (8, 1), (9, 2), (5, 1)],
    ),
    (
        Theme::Preemption,
        &[(38, 2), (37, 1), (1, 3), (4, 1), (3, 1), (9, 1), (5, 1)],
    ),
    (
        Theme::Users,
        &[(6, 2), (7, 2), (8, 1), (9, 2), (15, 1), (10, 1), (12, 3)],
    ),
    (
        Theme::PerCpu,
        &[(18, 4), (19, 5), (20, 3), (21, 3), (9, 1), (2, 1)],
    ),
    (Theme::Objects, &[(22, 5), (23, 5), (9, 1), (3, 1)]),
    (Theme::Locks, &[(24, 7), (25, 9), (26, 1), (27, 1)]),
    (
        Theme::Slots,
        &[
            (28, 3),
            (29, 3),
            (30, 3),
            (31, 3),
            (32, 2),
            (10, 1),
            (11, 1),
            (12, 1),
        ],
    ),
    (
        Theme::Loops,
        &[(33, 2), (34, 1), (35, 4), (36, 1), (10, 2), (11, 2), (9, 1)],
    ),
];

/// A system call of a task's own code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UserCall {
    /// Has a script executed.
    Run(u32),
    /// Overwrites an element, or makes one in the hash map.
    Update(Target, u32),
    /// Deletes one of the hash map.
    Delete(u32),
    /// Looks up one of the hash map.
    Lookup(u32),
    /// Closes the array.
    Close,
    /// Sleeps for this long, in ns.
    Sleep(u64),
}

/// A map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// The array with all that callbacks need.
    Elements,
    /// The hash map.
    Table,
}

/// A program in an interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interrupt {
    /// Where.
    pub cpu: u32,
    /// Not before so much time has passed, in ns.
    pub after: u64,
    /// What it executes.
    pub script: u32,
}

/// Scripts from here on are those of callbacks.
const CALLBACKS: u8 = 4;

/// The program of a seed.
pub fn small_world(seed: u64) -> SmallWorld {
    let (theme, codes) = THEMES[(seed % THEMES.len() as u64) as usize];
    let mut rng = Rng(seed ^ 0x5eed);
    // A few codes and mostly one object, so that executions meet there.
    let palette: Vec<(u8, u32)> = (0..3).map(|_| (code_of(&mut rng, codes), 1)).collect();
    let usual = rng.below(2) as u8;
    let mut scripts = [[(0, 0); SCRIPT_LEN]; SCRIPTS];
    for (i, script) in scripts.iter_mut().enumerate() {
        let callback = i >= CALLBACKS.into();
        let long = !callback && theme != Theme::Locks && rng.below(8) == 0;
        let len = 1 + usize::from(long);
        for op in script.iter_mut().take(len) {
            let which = usual ^ u8::from(rng.below(6) == 0);
            *op = op_of(&mut rng, &palette, which, callback);
        }
    }
    let mut world = SmallWorld {
        theme,
        scripts,
        cpus: 2,
        begun: vec![(0, 0), (1, 1)],
        users: Vec::new(),
        interrupts: Vec::new(),
        full: false,
        page_in: 0,
        horizon: [500_000, 2_000_000][rng.below(2) as usize],
        passes: [0, 0, 1_000_000, 2_000_000][rng.below(4) as usize],
    };
    match theme {
        Theme::Sleep => {
            world.page_in = [0, 1_000, 1_000_000][rng.below(3) as usize];
            if rng.below(6) == 0 {
                world.begun.push((rng.below(2), 2));
            }
        }
        Theme::TaskWork => {
            world.page_in = [0, 0, 1_000][rng.below(3) as usize];
            if rng.below(2) == 0 {
                world.cpus = 3;
                // Two whose task works meet in the queue of a third.
                world.begun = vec![(1, 0), (2, 1)];
            }
        }
        Theme::Interrupts => {
            for script in 2..3 + u32::from(rng.below(4) == 0) {
                let after = [0, 0, 1_000_000][rng.below(3) as usize];
                let cpu = rng.below(2);
                world.interrupts.push(Interrupt { cpu, after, script });
            }
            if rng.below(4) > 0 {
                world.begun.pop();
            }
        }
        Theme::Preemption => {
            world.full = true;
            world.begun = vec![(0, 0), (0, 1)];
            if rng.below(4) == 0 {
                world.begun.push((1, 2));
            }
        }
        Theme::Users => {
            world.begun = vec![(0, 0)];
            world.users = vec![(1, calls(&mut rng))];
            match rng.below(6) {
                0 => world.users.push((0, calls(&mut rng))),
                1 => world.begun.push((1, 1)),
                _ => {}
            }
        }
        _ => {
            if rng.below(8) == 0 {
                world.begun.push((rng.below(2), 2));
            }
        }
    }
    world
}

fn calls(rng: &mut Rng) -> Vec<UserCall> {
    let len = 1 + rng.below(2);
    let call = |_| match rng.below(8) {
        0 => UserCall::Run(2),
        1 => UserCall::Update(Target::Elements, u32::from(CALLBACKS) + rng.below(2)),
        2 => UserCall::Update(Target::Table, rng.below(2)),
        3 => UserCall::Delete(rng.below(2)),
        4 => UserCall::Lookup(rng.below(2)),
        5 | 6 => UserCall::Close,
        _ => UserCall::Sleep([0, 1_000_000][rng.below(2) as usize]),
    };
    (0..len).map(call).collect()
}

fn op_of(rng: &mut Rng, codes: &[(u8, u32)], which: u8, callback: bool) -> (u8, u8) {
    let code = code_of(rng, codes);
    let element = CALLBACKS + which;
    match code {
        // Callbacks arm nothing, or there would be no end.
        6 | 7 | 9 | 15 | 16 if callback => (2, which),
        5..=9 | 17 => (code, element),
        // Mostly one task, and any of its works.
        15 | 16 => {
            let task = u8::from(rng.below(4) == 0);
            (code, (CALLBACKS + rng.below(2) as u8) | task << 4)
        }
        _ => (code, which),
    }
}
