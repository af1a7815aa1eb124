//! `bpf_crypto_*`: ciphers of the kernel, `ecb(aes)` and `cbc(aes)`, as contexts with references.

use super::{Kfunc, row};
use crate::dynptr::Dynptr;
use crate::helper::{Arg, Args, ret};
use crate::object::ObjectKind;
use crate::state::State;
use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Aes192, Aes256, Block};
use bpfsim_abi::Errno;
use bpfsim_vm::{Flow, GuestMem};

pub(super) const KFUNCS: &[Kfunc] = &[
    row("bpf_crypto_ctx_create", false, create),
    row("bpf_crypto_ctx_acquire", true, |st, _, a| {
        match st.objects.cipher(a.r[0]).is_some() {
            true => Ok(Flow::Done(st.obj_acquire(a.r[0]).unwrap_or(0))),
            false => a.bad(1),
        }
    }),
    row("bpf_crypto_ctx_release", true, |st, mem, a| {
        let gone = st.obj_drop(mem, a.r[0]);
        gone.map_or_else(|| a.bad(1), |()| Ok(Flow::Done(0)))
    }),
    row("bpf_crypto_encrypt", true, |st, mem, a| {
        crypt(st, mem, a, Cipher::encrypt)
    }),
    row("bpf_crypto_decrypt", true, |st, mem, a| {
        crypt(st, mem, a, Cipher::decrypt)
    }),
];

/// `AES_BLOCK_SIZE`
const BLOCK: usize = 16;

/// Members of `struct bpf_crypto_params`.
mod params {
    use std::ops::Range;
    pub const SIZE: u64 = 408;
    pub const TYPE: Range<usize> = 0..14;
    pub const RESERVED: Range<usize> = 14..16;
    pub const ALGO: Range<usize> = 16..144;
    pub const KEY: Range<usize> = 144..400;
    pub const KEY_LEN: Range<usize> = 400..404;
    pub const AUTHSIZE: Range<usize> = 404..408;
}

/// A block cipher with its key.
#[derive(Clone)]
enum Aes {
    Bits128(Aes128),
    Bits192(Aes192),
    Bits256(Aes256),
}

impl Aes {
    fn new(key: &[u8]) -> Option<Aes> {
        Some(match key.len() {
            16 => Aes::Bits128(Aes128::new_from_slice(key).ok()?),
            24 => Aes::Bits192(Aes192::new_from_slice(key).ok()?),
            32 => Aes::Bits256(Aes256::new_from_slice(key).ok()?),
            _ => return None,
        })
    }

    fn encrypt(&self, block: &mut Block) {
        match self {
            Aes::Bits128(aes) => aes.encrypt_block(block),
            Aes::Bits192(aes) => aes.encrypt_block(block),
            Aes::Bits256(aes) => aes.encrypt_block(block),
        }
    }

    fn decrypt(&self, block: &mut Block) {
        match self {
            Aes::Bits128(aes) => aes.decrypt_block(block),
            Aes::Bits192(aes) => aes.decrypt_block(block),
            Aes::Bits256(aes) => aes.decrypt_block(block),
        }
    }
}

/// What a `struct bpf_crypto_ctx` stands for.
#[derive(Clone)]
pub(crate) struct Cipher {
    aes: Aes,
    /// Blocks depend on those before them (`cbc`).
    chained: bool,
}

impl Cipher {
    /// `ctx->siv_len`: bytes of an initialization vector.
    fn vector_len(&self) -> u32 {
        if self.chained { BLOCK as u32 } else { 0 }
    }

    /// A block; `vector` is what the next one is chained to.
    fn encrypt(&self, block: &mut Block, vector: &mut [u8; BLOCK]) {
        if self.chained {
            xor(block, vector);
        }
        self.aes.encrypt(block);
        vector.copy_from_slice(block);
    }

    fn decrypt(&self, block: &mut Block, vector: &mut [u8; BLOCK]) {
        let given: [u8; BLOCK] = (*block).into();
        self.aes.decrypt(block);
        if self.chained {
            xor(block, vector);
        }
        *vector = given;
    }
}

fn xor(block: &mut Block, with: &[u8; BLOCK]) {
    for (byte, with) in block.iter_mut().zip(with) {
        *byte ^= with;
    }
}

/// Bytes up to the first NUL.
fn text(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|&b| b == 0);
    &bytes[..end.unwrap_or(bytes.len())]
}

fn word(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .rev()
        .fold(0, |word, &b| word << 8 | u32::from(b))
}

/// What `struct bpf_crypto_params` asks for.
fn cipher(given: &[u8]) -> Result<Cipher, Errno> {
    if given[params::RESERVED] != [0, 0] {
        return Err(Errno::EINVAL);
    }
    if text(&given[params::TYPE]) != b"skcipher" {
        return Err(Errno::ENOENT);
    }
    let chained = match text(&given[params::ALGO]) {
        b"ecb(aes)" => false,
        b"cbc(aes)" => true,
        // Known, but of the other kind of symmetric ciphers.
        b"ctr(aes)" | b"xts(aes)" => return Err(Errno::EINVAL),
        _ => return Err(Errno::EOPNOTSUPP),
    };
    // Ciphers of this type authenticate nothing.
    if word(&given[params::AUTHSIZE]) != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    let key = given[params::KEY]
        .get(..word(&given[params::KEY_LEN]) as usize)
        .ok_or(Errno::EINVAL)?;
    let aes = Aes::new(key).ok_or(Errno::EINVAL)?;
    Ok(Cipher { aes, chained })
}

/// `bpf_crypto_ctx_create(params, params__sz, err)`
fn create(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let made = match a.r[1] as u32 as u64 {
        params::SIZE => cipher(&a.bytes(mem, 1, params::SIZE)?),
        _ => Err(Errno::EINVAL),
    };
    let made = made.and_then(|cipher| {
        let layout = st.objects.crypto;
        let (cpu, kind) = (st.cur.cpu, ObjectKind::Crypto);
        let at = st.objects.alloc(mem, cpu, kind, layout.size, 1);
        let at = at.ok_or(Errno::ENOMEM)?;
        if let Some(bytes) = mem.slice_mut(at, layout.size.into()) {
            bytes.fill(0);
        }
        mem.write_u32(at + u64::from(layout.siv_len), cipher.vector_len());
        st.objects.set_cipher(at, cipher);
        Ok(at)
    });
    let errno = made.err().map_or(0, |e| -i32::from(e.0));
    match mem.write_u32(a.r[2], errno as u32) {
        Some(()) => Ok(Flow::Done(made.unwrap_or(0))),
        None => a.bad(3),
    }
}

/// `bpf_crypto_crypt`: blocks one after another, from `src` to `dst`; what remains of less than a
/// block is an error once they are done.
fn crypt(
    st: &mut State,
    mem: &mut GuestMem,
    a: &Args,
    step: fn(&Cipher, &mut Block, &mut [u8; BLOCK]),
) -> Arg<Flow> {
    let Some(cipher) = st.objects.cipher(a.r[0]).cloned() else {
        return a.bad(1);
    };
    let (src, dst) = (Dynptr::read(mem, a, 2)?, Dynptr::read(mem, a, 3)?);
    let siv = match a.r[3] {
        0 => None,
        _ => Dynptr::read(mem, a, 4)?,
    };
    let einval = Ok(Flow::Done(ret(Err(Errno::EINVAL))));
    let (Some(src), Some(dst)) = (src, dst) else {
        return einval;
    };
    let siv_len = siv.map_or(0, |d| d.size);
    if dst.rdonly || src.size == 0 || src.size > dst.size || siv_len != cipher.vector_len() {
        return einval;
    }
    let len = u64::from(src.size);
    let from = src.slice(st, 0, len);
    let to = dst.slice_rdwr(st, 0, dst.size.into());
    let (Some(from), Some(to)) = (from, to) else {
        return einval;
    };
    let at = siv.map(|d| d.slice_rdwr(st, 0, d.size.into()));
    let mut vector = [0; BLOCK];
    let at = match at.filter(|_| siv_len != 0) {
        Some(None) => return einval,
        Some(Some(at)) => {
            vector.copy_from_slice(&a.memory(mem, at, BLOCK as u64)?);
            Some(at)
        }
        None => None,
    };
    let whole = len - len % BLOCK as u64;
    for off in (0..whole).step_by(BLOCK) {
        let mut block = Block::default();
        block.copy_from_slice(&a.memory(mem, from + off, BLOCK as u64)?);
        step(&cipher, &mut block, &mut vector);
        match mem.slice_mut(to + off, BLOCK as u64) {
            Some(bytes) => bytes.copy_from_slice(&block),
            None => return a.bad(3),
        }
    }
    if let Some(bytes) = at.and_then(|at| mem.slice_mut(at, BLOCK as u64)) {
        bytes.copy_from_slice(&vector);
    }
    if whole != len {
        return einval;
    }
    Ok(Flow::Done(0))
}
