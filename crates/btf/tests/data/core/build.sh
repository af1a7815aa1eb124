#!/bin/sh
# Builds the blobs beside this file from the C sources beside it.
set -e
cd "$(dirname "$0")"
flags="-g -O2 -target bpf -mcpu=v3 -Wno-everything"
for c in *.c; do
	name=${c%.c}
	clang-22 $flags -c "$c" -o "$name.o"
	llvm-objcopy-22 --dump-section=.BTF="$name.btf" "$name.o" /dev/null
done
llvm-objcopy-22 --dump-section=.BTF.ext=prog.btf_ext --dump-section=tc=tc.bin --dump-section=xdp=xdp.bin prog.o /dev/null
rm -f ./*.o
