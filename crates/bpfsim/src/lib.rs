//! Test BPF programs for Linux in your process: load, run, and run what they left, in every order
