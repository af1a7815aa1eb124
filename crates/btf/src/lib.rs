//! BTF and BTF.ext: read, write, walk types, match CO-RE relocations
