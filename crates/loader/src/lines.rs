//! Which C line an instruction comes from.

use std::sync::Arc;

use bpfsim_btf::Btf;

/// The C lines of a program, by instruction.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    strings: Strings,
    records: Vec<LineRecord>,
}

/// Where names and lines of code lie.
#[derive(Clone, Debug)]
enum Strings {
    /// `.BTF.ext`: offsets into BTF's strings.
    Btf(Arc<Btf>),
    /// DWARF: indices of file names; it has no text of lines.
    Files(Arc<[String]>),
}

impl Default for Strings {
    fn default() -> Strings {
        Strings::Files(Arc::from([]))
    }
}

/// One record; names are numbers, since many programs share them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LineRecord {
    pub(crate) insn: u32,
    pub(crate) file: u32,
    pub(crate) text: u32,
    pub(crate) line: u32,
    pub(crate) col: u32,
}

impl LineRecord {
    /// A record of `.BTF.ext`; its instruction counts from the section's start.
    pub(crate) fn of(info: &bpfsim_btf::LineInfo) -> LineRecord {
        LineRecord {
            insn: info.insn_off / bpfsim_isa::Insn::SIZE as u32,
            file: info.file_name_off,
            text: info.line_off,
            line: info.line,
            col: info.col,
        }
    }
}

/// A line of C, from this instruction to that of the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineInfo<'a> {
    /// First instruction.
    pub insn: usize,
    /// File, as the compiler was given it; empty if unknown.
    pub file: &'a str,
    /// Line, from 1; 0 if unknown.
    pub line: u32,
    /// Column, from 1; 0 if unknown.
    pub col: u32,
    /// The line's text; empty where DWARF is all there is.
    pub text: &'a str,
}

impl Lines {
    pub(crate) fn from_btf(btf: Arc<Btf>, records: Vec<LineRecord>) -> Lines {
        let strings = Strings::Btf(btf);
        Lines { strings, records }
    }

    pub(crate) fn from_files(files: Arc<[String]>, records: Vec<LineRecord>) -> Lines {
        let strings = Strings::Files(files);
        Lines { strings, records }
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// All of them, by instruction.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = LineInfo<'_>> {
        self.records.iter().map(|r| self.info(r))
    }

    /// The line of this instruction: the last record at or before it.
    pub fn at(&self, insn: usize) -> Option<LineInfo<'_>> {
        let after = self.records.partition_point(|r| r.insn as usize <= insn);
        Some(self.info(self.records.get(after.checked_sub(1)?)?))
    }

    /// The record that starts at this instruction.
    pub fn starting_at(&self, insn: usize) -> Option<LineInfo<'_>> {
        self.at(insn).filter(|line| line.insn == insn)
    }

    fn info(&self, r: &LineRecord) -> LineInfo<'_> {
        let (file, text) = match &self.strings {
            Strings::Btf(btf) => (
                btf.string(r.file).unwrap_or(""),
                btf.string(r.text).unwrap_or(""),
            ),
            Strings::Files(files) => (files.get(r.file as usize).map_or("", |s| s), ""),
        };
        LineInfo {
            insn: r.insn as usize,
            file,
            line: r.line,
            col: r.col,
            text,
        }
    }
}
