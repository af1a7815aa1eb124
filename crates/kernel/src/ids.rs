//! Names of the things in a simulation. All are handed out in order of creation.

use std::fmt;

macro_rules! index {
    ($($(#[$doc:meta])* $name:ident, $what:literal;)*) => {
        $($(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(pub u32);

        impl $name {
            pub(crate) fn at(self) -> usize {
                self.0 as usize
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($what, "{}"), self.0)
            }
        })*
    };
}

index! {
    /// A virtual CPU, from 0.
    Cpu, "cpu";
    /// A map.
    MapId, "map";
    /// A loaded program.
    ProgId, "prog";
    /// A task, by its place in the simulation; its pid is another number.
    TaskId, "task";
    /// A socket.
    SockId, "sock";
    /// A cgroup, by its place in the simulation; its id is another number.
    CgroupId, "cgroup";
    /// A file.
    FileId, "file";
    /// A namespace.
    NsId, "ns";
}

/// Identity of one execution of a program or callback, the same in every order of execution:
/// it derives from who made it and how many that one made before.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CtxId(pub u64);

impl CtxId {
    /// What user space does itself.
    pub const USER: CtxId = CtxId(0);

    /// The `nth` one that this one makes.
    pub fn child(self, nth: u32) -> CtxId {
        CtxId(mix(mix(self.0, 0x6b79), nth as u64) | 1)
    }
}

impl fmt::Display for CtxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0 >> 32)
    }
}

/// One step of a 64-bit hash over words. Traces, identities and replay lines depend on it: its
/// results may not change.
#[inline]
pub fn mix(state: u64, word: u64) -> u64 {
    let x = (state ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let y = ((x as u128).wrapping_mul(0xd6e8_feb8_6659_fd93_u128)) as u64;
    (y ^ (y >> 32)).wrapping_add(word.rotate_left(25))
}

/// Tells byte strings apart: replay strings depend on it, its results may not change.
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    let word = |hash, chunk: &[u8]| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        mix(hash, u64::from_le_bytes(word))
    };
    bytes.chunks(8).fold(bytes.len() as u64, word)
}
