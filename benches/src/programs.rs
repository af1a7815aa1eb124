//! The twelve programs that engines are compared on, in LLVM's assembler.
//!
//! All find their input at r1 and nothing in other registers, use at most 512 bytes of stack and
//! only what every peer runs: 64-bit arithmetic of cpu v1 and v2's jumps. What they leave in r0
//! and how many instructions they execute is counted by [`crate::reference`].

use crate::world::World;
use bpfsim_isa::{Insn, assemble};

/// Number of the one helper: what solana-sbpf makes of the name [`HELPER_NAME`].
pub const HELPER: u32 = 0x75e1_7ff8;
/// Name of the one helper, which is [`helper`].
pub const HELPER_NAME: &str = "mix";

/// What the one helper does.
pub fn helper(a: u64, b: u64, _: u64, _: u64, _: u64) -> u64 {
    a.rotate_left(7) ^ b
}

/// A program and its input.
#[derive(Debug, Clone)]
pub struct Program {
    /// What tables call it.
    pub name: String,
    /// Its instructions.
    pub slots: Vec<Insn>,
    /// What it is given.
    pub world: World,
    /// The program is so short that its cost is given for each run, not for each instruction.
    pub per_run: bool,
}

/// All twelve.
///
/// # Panics
/// If a program of this file does not assemble.
pub fn programs() -> Vec<Program> {
    let packet = tcp_packet(1500);
    let none = || vec![0; 8];
    let helper = HELPER_CALL.replace("HELPER", &HELPER.to_string());
    let rows: [(&str, &str, Vec<u8>, bool); 12] = [
        ("xorshift", XORSHIFT, none(), false),
        ("tight", TIGHT, none(), false),
        ("sieve", SIEVE, none(), false),
        ("csum8", CSUM8, packet.clone(), false),
        ("csum16", CSUM16, packet.clone(), false),
        ("collatz", COLLATZ, none(), false),
        ("bsearch", BSEARCH, none(), false),
        ("muldiv", MULDIV, none(), false),
        ("calls", CALLS, none(), false),
        ("helper", &helper, none(), false),
        ("pkt", PKT, packet, true),
        ("nop2", "r0 = 1\nexit", none(), true),
    ];
    rows.into_iter()
        .map(|(name, text, input, per_run)| Program {
            name: name.to_string(),
            slots: assemble(text).unwrap_or_else(|e| panic!("{name}: {e}")),
            world: World::input(input),
            per_run,
        })
        .collect()
}

/// An Ethernet, IPv4 and TCP packet to port 443, `len` bytes long.
fn tcp_packet(len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..len).map(|i| (i * 31 + (i >> 3)) as u8).collect();
    bytes[12..14].copy_from_slice(&[0x08, 0x00]);
    bytes[14] = 0x45;
    bytes[16..18].copy_from_slice(&((len - 14) as u16).to_be_bytes());
    bytes[20..22].copy_from_slice(&[0x40, 0x00]);
    bytes[22..24].copy_from_slice(&[64, 6]);
    bytes[26..30].copy_from_slice(&[10, 0, 0, 1]);
    bytes[30..34].copy_from_slice(&[10, 0, 0, 2]);
    bytes[36..38].copy_from_slice(&443_u16.to_be_bytes());
    bytes[46] = 0x50;
    bytes[47] = 0x02;
    bytes
}

const XORSHIFT: &str = "
        r0 = 0x2545f4914f6cdd1d ll
        r3 = 0
        r1 = 4000
    next:
        r2 = r0
        r2 <<= 13
        r0 ^= r2
        r2 = r0
        r2 >>= 7
        r0 ^= r2
        r2 = r0
        r2 <<= 17
        r0 ^= r2
        r3 += r0
        r1 += -1
        if r1 != 0 goto next
        r0 = r3
        exit";

const TIGHT: &str = "
        r0 = 0
        r1 = 0
    next:
        r0 ^= r1
        r0 += 7
        r1 += 1
        if r1 < 10000 goto next
        exit";

/// Primes below 512, one byte each on the stack.
const SIEVE: &str = "
        r1 = 0
        r2 = r10
        r2 += -512
    clear:
        *(u64 *)(r2 + 0) = 0
        r2 += 8
        r1 += 8
        if r1 < 512 goto clear
        r0 = 0
        r1 = 2
    candidate:
        r2 = r10
        r2 += -512
        r3 = r2
        r3 += r1
        r4 = *(u8 *)(r3 + 0)
        if r4 != 0 goto skip
        r0 += 1
        r5 = r1
        r5 += r1
    strike:
        if r5 > 511 goto skip
        r3 = r2
        r3 += r5
        *(u8 *)(r3 + 0) = r1
        r5 += r1
        goto strike
    skip:
        r1 += 1
        if r1 != 512 goto candidate
        exit";

/// Sum of the bytes of the packet, each access after a check against the end.
const CSUM8: &str = "
        r2 = r1
        r2 += 1500
        r0 = 0
    next:
        r3 = r1
        r3 += 1
        if r3 > r2 goto done
        r4 = *(u8 *)(r1 + 0)
        r0 += r4
        r1 = r3
        goto next
    done:
        exit";

/// The internet checksum of the packet, sixteen bits at a time.
const CSUM16: &str = "
        r2 = r1
        r2 += 1500
        r0 = 0
    next:
        r3 = r1
        r3 += 2
        if r3 > r2 goto fold
        r4 = *(u16 *)(r1 + 0)
        r0 += r4
        r1 += 2
        goto next
    fold:
        r3 = r0
        r3 >>= 16
        if r3 == 0 goto done
        r0 &= 65535
        r0 += r3
        goto fold
    done:
        r0 ^= 65535
        exit";

/// Steps of the Collatz sequences from 1 to 100.
const COLLATZ: &str = "
        r0 = 0
        r1 = 1
    start:
        r2 = r1
    step:
        if r2 == 1 goto end
        r0 += 1
        r3 = r2
        r3 &= 1
        if r3 == 0 goto even
        r3 = r2
        r3 <<= 1
        r2 += r3
        r2 += 1
        goto step
    even:
        r2 >>= 1
        goto step
    end:
        r1 += 1
        if r1 < 101 goto start
        exit";

/// Looks up 500 numbers in a sorted table of 64 on the stack.
const BSEARCH: &str = "
        r1 = 0
        r2 = r10
        r2 += -512
    fill:
        r3 = r1
        r3 *= 7
        *(u64 *)(r2 + 0) = r3
        r2 += 8
        r1 += 1
        if r1 < 64 goto fill
        r0 = 0
        r1 = 0
    lookup:
        r2 = 0
        r3 = 64
    halve:
        if r2 >= r3 goto missing
        r4 = r2
        r4 += r3
        r4 >>= 1
        r5 = r4
        r5 <<= 3
        r5 += r10
        r5 = *(u64 *)(r5 - 512)
        if r5 == r1 goto found
        if r5 > r1 goto below
        r2 = r4
        r2 += 1
        goto halve
    below:
        r3 = r4
        goto halve
    found:
        r0 += r4
    missing:
        r1 += 1
        if r1 < 500 goto lookup
        exit";

const MULDIV: &str = "
        r0 = 1
        r1 = 3000
    next:
        r2 = r0
        r2 *= 1103515245
        r2 += 12345
        r3 = r2
        r3 /= 1000
        r4 = r2
        r4 %= 1009
        r3 += r4
        r0 ^= r3
        r0 += r2
        r1 += -1
        if r1 != 0 goto next
        exit";

const CALLS: &str = "
        r6 = 0
        r7 = 2000
    next:
        r1 = r6
        r2 = r7
        call outer
        r6 += r0
        r7 += -1
        if r7 != 0 goto next
        r0 = r6
        exit
    outer:
        r6 = r2
        r1 ^= r2
        call inner
        r0 += r6
        exit
    inner:
        r0 = r1
        r0 *= 3
        r0 += 1
        exit";

const HELPER_CALL: &str = "
        r6 = 20000
        r7 = 0
    next:
        r1 = r7
        r2 = r6
        call HELPER
        r7 += r0
        r6 += -1
        if r6 != 0 goto next
        r0 = r7
        exit";

/// What a small firewall does with a packet: Ethernet, IPv4 without options, TCP or UDP, ports,
/// a hash of the flow.
const PKT: &str = "
        r6 = r1
        r7 = r1
        r7 += 1500
        r2 = r6
        r2 += 14
        if r2 > r7 goto drop
        r3 = *(u16 *)(r6 + 12)
        r3 = be16 r3
        if r3 != 0x800 goto drop
        r2 = r6
        r2 += 34
        if r2 > r7 goto drop
        r3 = *(u8 *)(r6 + 14)
        r4 = r3
        r4 >>= 4
        if r4 != 4 goto drop
        r3 &= 15
        if r3 != 5 goto drop
        r3 = *(u16 *)(r6 + 20)
        r3 = be16 r3
        r3 &= 0x3fff
        if r3 != 0 goto drop
        r3 = *(u8 *)(r6 + 22)
        if r3 < 2 goto drop
        r4 = *(u8 *)(r6 + 23)
        if r4 == 6 goto ports
        if r4 != 17 goto drop
    ports:
        r2 = r6
        r2 += 54
        if r2 > r7 goto drop
        r5 = *(u16 *)(r6 + 36)
        r5 = be16 r5
        r0 = *(u16 *)(r6 + 34)
        r0 = be16 r0
        r1 = *(u32 *)(r6 + 26)
        r2 = *(u32 *)(r6 + 30)
        *(u32 *)(r10 - 16) = r1
        *(u32 *)(r10 - 12) = r2
        *(u16 *)(r10 - 8) = r0
        *(u16 *)(r10 - 6) = r5
        r3 = *(u64 *)(r10 - 16)
        r8 = 0x9e3779b97f4a7c15 ll
        r3 *= r8
        r4 = r3
        r4 >>= 29
        r3 ^= r4
        r0 <<= 16
        r0 |= r5
        r0 ^= r3
        if r5 == 443 goto out
        r0 >>= 1
        goto out
    drop:
        r0 = 0
    out:
        exit";
