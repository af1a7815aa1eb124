//! Small random programs for `fixtures/small_orders.bpf.o`: few enough steps that every order of
//! them can be enumerated.

/// One program: what two or three executions do, and what callbacks do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmallOrders {
    /// `scripts[i][j]` is (code, argument): the fixture's `scripts`.
    pub scripts: Scripts,
    /// CPU and script of each execution that is begun.
    pub begun: Vec<(u32, u32)>,
    /// How early timers may be, in ns.
    pub horizon: u64,
    /// Virtual time that passes after them, in ns.
    pub passes: u64,
}

/// What is executed.
pub type Scripts = [[(u8, u8); SCRIPT_LEN]; SCRIPTS];

/// Scripts.
pub const SCRIPTS: usize = 8;
/// Operations of a script.
pub const SCRIPT_LEN: usize = 4;

/// What scripts do, by how often: the fixture's `enum code`.
const CODES: &[(u8, u32)] = &[
    (1, 4),  // increment
    (2, 3),  // atomic add
    (3, 3),  // load
    (4, 2),  // store
    (5, 3),  // increment under a lock
    (6, 3),  // timer, at once
    (7, 3),  // timer, after a while
    (8, 4),  // cancel
    (9, 3),  // work
    (10, 2), // map update
    (11, 2), // map delete
    (12, 2), // map look-up
    (13, 1), // record
];

/// What scripts that print do: lines, and what makes more than two executions of them.
const PRINTING: &[(u8, u32)] = &[
    (14, 5), // print
    (1, 1),
    (5, 1),
    (6, 2),
    (8, 1),
    (9, 2),
];

/// Scripts from here on are those of callbacks.
const CALLBACKS: u8 = 4;

/// The program of a seed.
pub fn small_orders(seed: u64) -> SmallOrders {
    of_codes(seed, CODES)
}

/// One that prints.
pub fn small_printing(seed: u64) -> SmallOrders {
    of_codes(seed, PRINTING)
}

fn of_codes(seed: u64, codes: &[(u8, u32)]) -> SmallOrders {
    let mut rng = Rng(seed);
    let mut scripts = [[(0, 0); SCRIPT_LEN]; SCRIPTS];
    for (i, script) in scripts.iter_mut().enumerate() {
        let callback = i >= CALLBACKS.into();
        let len = match callback {
            true => 1,
            false => 1 + (rng.below(4) == 0) as usize,
        };
        for op in script.iter_mut().take(len) {
            *op = op_of(&mut rng, codes, callback);
        }
    }
    let mut begun = vec![(0, 0), (1, 1)];
    if rng.below(8) == 0 {
        begun.push((rng.below(2), 2));
    }
    // A timer's while is a millisecond.
    SmallOrders {
        scripts,
        begun,
        horizon: [500_000, 2_000_000][rng.below(2) as usize],
        passes: [0, 0, 1_000_000, 2_000_000][rng.below(4) as usize],
    }
}

/// One of the codes, by their weights.
pub(crate) fn code_of(rng: &mut Rng, codes: &[(u8, u32)]) -> u8 {
    let all: u32 = codes.iter().map(|(_, weight)| weight).sum();
    let mut at = rng.below(all);
    let found = codes.iter().find(|(_, weight)| {
        let here = at < *weight;
        at = at.wrapping_sub(*weight);
        here
    });
    found.map_or(1, |(code, _)| *code)
}

fn op_of(rng: &mut Rng, codes: &[(u8, u32)], callback: bool) -> (u8, u8) {
    let code = code_of(rng, codes);
    match code {
        // Callbacks arm nothing, or there would be no end.
        6 | 7 | 9 if callback => (if codes == CODES { 2 } else { 14 }, 0),
        // Few elements, so that executions meet there.
        6..=9 => (code, CALLBACKS + rng.below(2) as u8),
        _ => (code, rng.below(2) as u8),
    }
}

/// As the fixtures have them in their `scripts`.
pub fn bytes(scripts: &Scripts) -> Vec<u8> {
    let ops = scripts.iter().flatten();
    ops.flat_map(|(code, arg)| [*code, *arg]).collect()
}

/// SplitMix64.
pub(crate) struct Rng(pub u64);

impl Rng {
    pub fn below(&mut self, n: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((((z ^ (z >> 31)) >> 32) * n as u64) >> 32) as u32
    }
}
