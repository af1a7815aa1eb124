//! Writing a result into an instruction.

use super::{CoreError, CoreResult};

/// Helper that poisoned instructions call: `0xbad2310`, read "bad relo".
pub const POISON_CALL: i32 = 0x0bad_2310;

const LD: u8 = 0x00;
const LDX: u8 = 0x01;
const ST: u8 = 0x02;
const STX: u8 = 0x03;
const ALU: u8 = 0x04;
const ALU64: u8 = 0x07;
const LDIMM64: u8 = 0x18;
const CALL: u8 = 0x85;
/// `BPF_SIZE`, by `log2` of the bytes.
const SIZES: [u8; 4] = [0x10, 0x08, 0x00, 0x18];

/// What became of the instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patched {
    /// It holds the new value.
    Value,
    /// It became a call that the verifier refuses.
    Poisoned,
}

/// An instruction's fields.
struct Fields {
    code: u8,
    dst: u8,
    src: u8,
    off: i16,
    imm: i32,
}

fn fields(insn: &[u8; 8]) -> Fields {
    let [code, regs, o0, o1, i0, i1, i2, i3] = *insn;
    Fields {
        code,
        dst: regs & 0xf,
        src: regs >> 4,
        off: i16::from_le_bytes([o0, o1]),
        imm: i32::from_le_bytes([i0, i1, i2, i3]),
    }
}

fn set_imm(insn: &mut [u8; 8], imm: i32) {
    insn[4..].copy_from_slice(&imm.to_le_bytes());
}

fn poison(insn: &mut [u8; 8]) {
    *insn = [CALL, 0, 0, 0, 0, 0, 0, 0];
    set_imm(insn, POISON_CALL);
}

/// Writes `result` into the first of `insns`, the ones from the relocated instruction on, each in its
/// eight bytes on the wire; a 64-bit load takes two (`bpf_core_patch_insn`).
///
/// # Errors
/// Instructions that cannot be relocated, or do not hold what the compiler must have put there.
pub fn patch(insns: &mut [[u8; 8]], result: &CoreResult) -> Result<Patched, CoreError> {
    let [insn, rest @ ..] = insns else {
        return Err(CoreError::TruncatedInsn);
    };
    let now = fields(insn);
    match now.code & 0x07 {
        // Register operands carry no value.
        ALU | ALU64 if now.code & 0x08 == 0 => {
            if result.poison {
                poison(insn);
                return Ok(Patched::Poisoned);
            }
            expect("ALU/ALU64", i64::from(now.imm), result)?;
            set_imm(insn, result.new_val as i32);
            Ok(Patched::Value)
        }
        LDX | ST | STX => patch_access(insn, &now, result),
        LD if now.code == LDIMM64 => match rest.first_mut() {
            Some(second) => patch_ldimm64(insn, second, &now, result),
            None => Err(CoreError::TruncatedInsn),
        },
        LD => Err(CoreError::Ldimm64Form),
        _ => Err(CoreError::UnrecognizedInsn {
            code: now.code,
            src: now.src,
            dst: now.dst,
            off: now.off,
            imm: now.imm,
        }),
    }
}

fn expect(class: &'static str, got: i64, result: &CoreResult) -> Result<(), CoreError> {
    match result.validate && got as u64 != result.orig_val {
        true => Err(CoreError::UnexpectedValue {
            class,
            got,
            expected: result.orig_val,
            new: result.new_val,
        }),
        false => Ok(()),
    }
}

/// A load or store: its offset, and its width if the field's has changed.
fn patch_access(
    insn: &mut [u8; 8],
    now: &Fields,
    result: &CoreResult,
) -> Result<Patched, CoreError> {
    if result.poison {
        poison(insn);
        return Ok(Patched::Poisoned);
    }
    expect("LDX/ST/STX", i64::from(now.off), result)?;
    let Ok(off) = i16::try_from(result.new_val) else {
        return Err(CoreError::OffsetTooBig(result.new_val));
    };
    if result.fail_memsz_adjust {
        poison(insn);
        return Ok(Patched::Poisoned);
    }
    if result.new_size != result.orig_size {
        let log = SIZES.iter().position(|&s| s == now.code & 0x18);
        let got = log.map_or(0, |log| 1 << log);
        if got != result.orig_size {
            return Err(CoreError::UnexpectedMemSize {
                got,
                expected: result.orig_size,
            });
        }
        let new = (0..4).find(|log| 1 << log == result.new_size);
        let Some(new) = new else {
            return Err(CoreError::InvalidMemSize(result.new_size));
        };
        insn[0] = now.code & !0x18 | SIZES[new];
    }
    insn[2..4].copy_from_slice(&off.to_le_bytes());
    Ok(Patched::Value)
}

fn patch_ldimm64(
    insn: &mut [u8; 8],
    second: &mut [u8; 8],
    now: &Fields,
    result: &CoreResult,
) -> Result<Patched, CoreError> {
    let high = fields(second);
    let plain = now.src == 0 && now.off == 0;
    if !plain || high.code != 0 || high.dst != 0 || high.src != 0 || high.off != 0 {
        return Err(CoreError::Ldimm64Form);
    }
    if result.poison {
        poison(insn);
        poison(second);
        return Ok(Patched::Poisoned);
    }
    let imm = u64::from(now.imm as u32) | u64::from(high.imm as u32) << 32;
    expect("LDIMM64", imm as i64, result)?;
    set_imm(insn, result.new_val as i32);
    set_imm(second, (result.new_val >> 32) as i32);
    Ok(Patched::Value)
}
