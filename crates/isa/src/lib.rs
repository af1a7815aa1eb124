//! The BPF instruction set as one table: decode, encode, assemble, disassemble
