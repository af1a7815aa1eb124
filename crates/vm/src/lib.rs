//! Guest memory and BPF engines; knows no maps and no helpers, only Host
