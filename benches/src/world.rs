//! What a program is given: memory, arguments, and answers to its calls, in a form that every engine
//! can make its own, whatever its addresses are.

/// What each call returned, and what it wrote, where.
pub type Replies = Vec<(u64, Vec<(u64, Vec<u8>)>)>;

/// Bytes of the stack that each frame has, in every engine.
pub const FRAME: u64 = 512;

/// A number, or a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// The same in every engine.
    Number(u64),
    /// A piece of memory, by its number, and how far from its beginning.
    In(usize, i64),
    /// The stack: a frame, and how far from its beginning.
    Stack(u64, u64),
}

/// Bytes, and which of them are places: eight bytes each, by where they begin.
#[derive(Debug, Clone, Default)]
pub struct Bytes {
    /// The bytes, zeros where there are places.
    pub data: Vec<u8>,
    /// The places among them.
    pub places: Vec<(usize, Value)>,
}

/// What a call gives.
#[derive(Debug, Clone)]
pub struct Reply {
    /// What it returns.
    pub r0: Value,
    /// What it writes, and where.
    pub writes: Vec<(Value, Bytes)>,
}

/// All that a program is given.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// Pieces of memory.
    pub memory: Vec<Bytes>,
    /// R1 to R5; what is missing is 0.
    pub args: Vec<Value>,
    /// Two-slot immediates that are places, by their instruction.
    pub immediates: Vec<(usize, Value)>,
    /// What the calls of a run give, one after the other. If there are none, a call is to
    /// [`crate::programs::helper`].
    pub replies: Vec<Reply>,
}

impl World {
    /// One piece of memory, and R1 its beginning.
    pub fn input(data: Vec<u8>) -> World {
        let places = Vec::new();
        World {
            memory: vec![Bytes { data, places }],
            args: vec![Value::In(0, 0)],
            ..World::default()
        }
    }
}

/// Where an engine has what a [`World`] speaks of.
#[derive(Debug, Clone, Copy)]
pub struct Addresses<'a> {
    /// Where each piece of memory begins.
    pub memory: &'a [u64],
    /// Where the outermost frame begins.
    pub stack: u64,
    /// From a frame to the one that it calls.
    pub frame: i64,
}

impl Addresses<'_> {
    /// The number that a value is.
    pub fn of(&self, value: Value) -> u64 {
        match value {
            Value::Number(number) => number,
            Value::In(piece, off) => self.memory[piece].wrapping_add_signed(off),
            Value::Stack(frame, off) => {
                let frames = (frame as i64).wrapping_mul(self.frame);
                self.stack.wrapping_add_signed(frames).wrapping_add(off)
            }
        }
    }

    /// The bytes as they stand in memory.
    pub fn bytes(&self, bytes: &Bytes) -> Vec<u8> {
        let mut data = bytes.data.clone();
        for &(at, value) in &bytes.places {
            data[at..at + 8].copy_from_slice(&self.of(value).to_le_bytes());
        }
        data
    }

    /// R1 to R5.
    pub fn args(&self, world: &World) -> [u64; 5] {
        let mut args = [0; 5];
        for (to, value) in args.iter_mut().zip(&world.args) {
            *to = self.of(*value);
        }
        args
    }

    /// The replies: what each call returns, and what it writes, where.
    pub fn replies(&self, world: &World) -> Replies {
        let write = |(at, bytes): &(Value, Bytes)| (self.of(*at), self.bytes(bytes));
        let reply = |r: &Reply| (self.of(r.r0), r.writes.iter().map(write).collect());
        world.replies.iter().map(reply).collect()
    }
}
