//! Inputs of `BPF_PROG_TEST_RUN`, right and wrong ones: what fixtures/test_run.bpf.c is run with on
//! Linux and on bpfsim.

use serde::{Deserialize, Serialize};

use crate::recording::{from_hex, to_hex};

/// Runs of each program that are recorded.
pub const RECORDED: u64 = 60;

/// The programs of the fixture.
pub const PROGRAMS: [&str; 11] = [
    "on_tc",
    "on_socket",
    "on_cgroup",
    "on_lwt_in",
    "on_lwt_xmit",
    "on_xdp",
    "on_xdp_frags",
    "on_flow",
    "on_lookup",
    "on_tracepoint",
    "on_call",
];

/// One run.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Case {
    /// The program.
    pub program: String,
    /// `data_in`
    #[serde(with = "hex", skip_serializing_if = "Vec::is_empty")]
    pub data: Vec<u8>,
    /// `ctx_in`
    #[serde(with = "hex", skip_serializing_if = "Vec::is_empty")]
    pub ctx: Vec<u8>,
    /// `repeat`
    #[serde(skip_serializing_if = "zero")]
    pub repeat: u32,
    /// `flags`
    #[serde(skip_serializing_if = "zero")]
    pub flags: u32,
    /// `cpu`
    #[serde(skip_serializing_if = "zero")]
    pub cpu: u32,
    /// `batch_size`
    #[serde(skip_serializing_if = "zero")]
    pub batch_size: u32,
    /// `data_size_out`, where it is not as much as there may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_size_out: Option<u32>,
    /// `ctx_size_out`, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ctx_size_out: Option<u32>,
    /// What came of it.
    pub answer: Answer,
}

/// What came of a run.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Answer {
    /// The errno, 0 for none; nothing else counts with one.
    #[serde(skip_serializing_if = "zero")]
    pub errno: u32,
    /// What the program returned.
    #[serde(skip_serializing_if = "zero")]
    pub retval: u32,
    /// The packet after it.
    #[serde(with = "hex", skip_serializing_if = "Vec::is_empty")]
    pub data: Vec<u8>,
    /// The context after it.
    #[serde(with = "hex", skip_serializing_if = "Vec::is_empty")]
    pub ctx: Vec<u8>,
    /// `.bss`: what the program noted.
    #[serde(with = "hex", skip_serializing_if = "Vec::is_empty")]
    pub seen: Vec<u8>,
}

fn zero(n: &u32) -> bool {
    *n == 0
}

/// Bytes in hexadecimal, `*N` for N zeros; `+` begins again after them.
mod hex {
    use super::{from_hex, to_hex};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Fewer zeros than these are written as they are, unless they are the last.
    const RUN: usize = 64;

    pub fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        let mut parts = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let long = rest.windows(RUN).position(|w| w.iter().all(|&b| b == 0));
            let last = rest.iter().rposition(|&b| b != 0).map_or(0, |l| l + 1);
            let used = long.unwrap_or(last);
            let after = &rest[used..];
            let zeros = after.iter().take_while(|&&b| b == 0).count();
            let text = to_hex(&rest[..used]);
            parts.push(match zeros {
                0 => text,
                n => format!("{text}*{n}"),
            });
            rest = &after[zeros..];
        }
        to.serialize_str(&parts.join("+"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        let mut bytes = Vec::new();
        for part in text.split('+') {
            let (digits, zeros) = part.split_once('*').unwrap_or((part, "0"));
            bytes.extend(from_hex(digits).map_err(D::Error::custom)?);
            let zeros: usize = zeros.parse().map_err(D::Error::custom)?;
            bytes.resize(bytes.len() + zeros.min(1 << 17), 0);
        }
        Ok(bytes)
    }
}

/// A generator that depends on its seed alone.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        // SplitMix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

/// The `nth` run of a program, without its answer.
pub fn case(program: &str, nth: u64) -> Case {
    let seed = program
        .bytes()
        .fold(nth, |s, b| s.wrapping_mul(131) + b as u64);
    let mut dice = Dice(seed);
    let d = &mut dice;
    let mut case = Case {
        program: program.to_string(),
        ..Case::default()
    };
    match program {
        "on_lookup" => {
            case.ctx = lookup_ctx(d);
            case.repeat = d.pick(&[0, 1, 3]);
            if d.one_in(12) {
                case.data = vec![0; 20];
            }
        }
        "on_tracepoint" => {
            case.ctx = words(d, &[24, 24, 32, 96, 97, 104]);
            case.repeat = u32::from(d.one_in(12));
            case.cpu = d.pick(&[0, 0, 0, 1, 4000]);
            case.flags = d.pick(&[0, 1, 1]);
        }
        "on_call" => {
            case.ctx = words(d, &[24, 25, 64, 256]);
            case.repeat = u32::from(d.one_in(12));
            case.cpu = u32::from(d.one_in(12));
            case.flags = u32::from(d.one_in(12));
            if d.one_in(12) {
                case.data = vec![0; 20];
            }
        }
        _ => {
            case.data = match program {
                "on_xdp_frags" => large_frame(d),
                _ => frame(d, program),
            };
            case.repeat = d.pick(&[0, 1, 1, 2, 3]);
            case.flags = if d.one_in(20) { d.pick(&[1, 8]) } else { 0 };
            case.cpu = u32::from(d.one_in(25));
            case.batch_size = u32::from(d.one_in(25));
            case.data_size_out = d.one_in(10).then(|| d.pick(&[1, 13, 40, 64]));
            case.ctx_size_out = d.one_in(10).then(|| d.pick(&[8, 24, 64, 200]));
            case.ctx = match program {
                "on_xdp" => xdp_ctx(d, case.data.len() as u32),
                "on_xdp_frags" => xdp_frags_ctx(d, case.data.len() as u32),
                "on_flow" => flow_ctx(d),
                _ => skb_ctx(d, case.data.len() as u32),
            };
        }
    }
    case
}

fn words(d: &mut Dice, sizes: &[usize]) -> Vec<u8> {
    let len = d.pick(sizes);
    let mut bytes: Vec<u8> = (0..len).map(|_| d.next() as u8).collect();
    // The program returns one of these: small enough to be told from an address.
    for at in [15, 23] {
        if let Some(b) = bytes.get_mut(at) {
            *b = 0;
        }
    }
    bytes
}

fn frame(d: &mut Dice, program: &str) -> Vec<u8> {
    let len = d.pick(&[
        14, 15, 24, 33, 34, 53, 54, 64, 64, 64, 64, 100, 100, 128, 300, 1500, 13, 0,
    ]);
    let len = match (program, d.one_in(15)) {
        ("on_flow", true) => d.pick(&[4096, 4097, 9000]),
        ("on_xdp", true) => d.pick(&[3519, 3520, 5000]),
        (_, true) => d.pick(&[3712, 3713, 4000]),
        (_, false) => len,
    };
    // Of a long one the end is zero, so that recordings stay small.
    let mut bytes: Vec<u8> = (0..len.min(90)).map(|_| d.next() as u8).collect();
    bytes.resize(len, 0);
    let mut put = |at: usize, what: &[u8]| {
        if let Some(to) = bytes.get_mut(at..at + what.len()) {
            to.copy_from_slice(what);
        }
    };
    let to = d.pick(&[
        [0; 6],
        [0; 6],
        [0xff; 6],
        [1, 0, 0x5e, 0, 0, 1],
        [2, 1, 1, 1, 1, 1],
    ]);
    put(0, &to);
    let what = d.below(12) as u8;
    let n = d.pick(&[
        0i16, 1, 3, 4, 8, 10, 14, 20, 30, 50, 60, 64, 90, 200, -1, -4, -8, -14, -32,
    ]);
    put(6, &[what, d.pick(&[0, 0, 0, 1, 2, 3, 64])]);
    put(8, &n.to_le_bytes());
    let proto = d.pick(&[0x0800u16, 0x0800, 0x86dd, 0x0806, 0x8100, 5, 0x600, 0]);
    put(12, &proto.to_be_bytes());
    bytes
}

/// A frame of one to nineteen pages, mostly zeros, that says what is to be done with it.
fn large_frame(d: &mut Dice) -> Vec<u8> {
    /// What the head's page has room for without metadata.
    const HEAD: usize = 4096 - 256 - 320;
    let len = match d.below(4) {
        0 => d.pick(&[64, 1500, HEAD, HEAD + 1, HEAD + 4096, HEAD + 4097]),
        1 => d.pick(&[4000, 5000, 6000, 12000, 20000]),
        2 => d.pick(&[HEAD + 17 * 4096, HEAD + 17 * 4096 + 1, 7616, 65535]),
        _ => 3000 + d.below(9000) as usize,
    };
    let mut bytes = vec![0; len];
    let mut fill = |from: usize, n: usize| {
        for b in bytes.iter_mut().skip(from).take(n) {
            *b = d.next() as u8;
        }
    };
    fill(0, 40);
    for edge in [HEAD, HEAD + 4096] {
        fill(edge - 24, 48);
    }
    fill(len.saturating_sub(24), 24);
    bytes[6] = d.below(17) as u8;
    let edges = [0, 14, HEAD, HEAD + 4096, 4096, 8192, len];
    let near = |d: &mut Dice| d.pick(&edges) as i64 + d.below(600) as i64 - 300;
    let n = match d.below(3) {
        0 => near(d),
        1 => -near(d),
        _ => d.pick(&[0, 1, 16, 576, 577, -14, -100, 300, 4000, 5000, -4096, -32]),
    };
    bytes[8..10].copy_from_slice(&(n as i16).to_le_bytes());
    let off = near(d) as u16;
    bytes[10..12].copy_from_slice(&off.to_le_bytes());
    bytes
}

/// Of most frames the head is said to be shorter than it could be.
fn xdp_frags_ctx(d: &mut Dice, len: u32) -> Vec<u8> {
    if d.one_in(4) {
        return Vec::new();
    }
    let meta: u32 = d.pick(&[0, 0, 4, 8, 32, 216]);
    let end = match d.below(4) {
        0 => len,
        1 => (meta + d.pick(&[13, 14, 64, 200, 1000])).min(len),
        2 => d.below(len as u64 + 2) as u32,
        _ => len.min(3000 + d.below(900) as u32),
    };
    [meta, end, 0, 0, 0, 0]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect()
}

/// Fields of four bytes at these places; one in `wrong` tries also somewhere else.
fn fields(d: &mut Dice, size: usize, allowed: &[(usize, &[u32])], wrong: u64) -> Vec<u8> {
    let mut ctx = vec![0; size];
    for &(at, values) in allowed {
        if d.one_in(3) {
            ctx[at..at + 4].copy_from_slice(&d.pick(values).to_le_bytes());
        }
    }
    if d.one_in(wrong) {
        let at = d.below(size as u64) as usize;
        ctx[at] = 1;
    }
    match d.below(12) {
        0 => ctx.extend([0; 8]),
        1 => ctx.extend([0, 0, 1, 0]),
        2 => ctx.truncate(d.below(size as u64) as usize),
        _ => {}
    }
    ctx
}

fn skb_ctx(d: &mut Dice, len: u32) -> Vec<u8> {
    if d.one_in(3) {
        return Vec::new();
    }
    let wire = [
        len,
        len.saturating_sub(1),
        len.saturating_sub(14),
        len + 9,
        65536,
        65537,
    ];
    let allowed: [(usize, &[u32]); 12] = [
        (8, &[7, u32::MAX]),
        (32, &[6, 0x8000_0000]),
        (36, &[1, 5, 77]),
        (40, &[0, 1, 1, 1, 4_000_000]),
        (48, &[0x0102_0304]),
        (64, &[0xff]),
        (152, &[1000]),
        (156, &[1]),
        (160, &wire),
        (164, &[1, 65535, 65536]),
        (176, &[9, 1500]),
        (184, &[11]),
    ];
    fields(d, 192, &allowed, 8)
}

fn xdp_ctx(d: &mut Dice, len: u32) -> Vec<u8> {
    if d.one_in(3) {
        return Vec::new();
    }
    let mut ctx = vec![0; 24];
    let meta: u32 = d.pick(&[0, 0, 4, 8, 12, 32, 36, 64, 216, 220, 256, 3]);
    let end = if d.one_in(8) { len + 4 } else { len };
    ctx[..4].copy_from_slice(&meta.to_le_bytes());
    ctx[4..8].copy_from_slice(&end.to_le_bytes());
    for (at, values) in [
        (8, [1u32, 4]),
        (12, [1, 4_000_000]),
        (16, [0, 1]),
        (20, [1, 1]),
    ] {
        if d.one_in(if at == 12 { 2 } else { 8 }) {
            ctx[at..at + 4].copy_from_slice(&d.pick(&values).to_le_bytes());
        }
    }
    if d.one_in(10) {
        ctx.extend([0; 4]);
    }
    ctx
}

fn flow_ctx(d: &mut Dice) -> Vec<u8> {
    if d.one_in(3) {
        return Vec::new();
    }
    fields(d, 56, &[(48, &[1, 2, 4, 7])], 8)
}

fn lookup_ctx(d: &mut Dice) -> Vec<u8> {
    let ip: [u32; 3] = [0x0100_007f, 0x0a0b_0c0d, u32::MAX];
    let mut ctx = fields(
        d,
        72,
        &[
            (16, &ip),
            (20, &ip),
            (32, &ip),
            (36, &[80, 0x5000, 0x1_0000]),
            (40, &ip),
            (52, &ip),
            (60, &[80, 65535, 65536]),
        ],
        10,
    );
    for (at, value) in [
        (8, d.pick(&[2, 2, 2, 10, 10, 1, 0x1_0002])),
        (12, d.pick(&[6, 17, 0x1_0006])),
    ] {
        if let Some(to) = ctx.get_mut(at..at + 4) {
            to.copy_from_slice(&u32::to_le_bytes(value));
        }
    }
    ctx
}
