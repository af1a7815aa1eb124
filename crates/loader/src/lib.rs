//! BPF ELF objects to programs, maps and relocations, as libbpf reads them
