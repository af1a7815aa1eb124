//! Explanations as text, on the C lines.

use std::collections::BTreeMap;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::{Explanation, Place};

/// Width that lines are cut to: none that a C line has.
const WIDTH: usize = 400;

/// A line that labels stand at.
#[derive(Default)]
struct Line {
    text: String,
    marks: Vec<(Range<usize>, String, bool)>,
}

/// The part of a line that is meant: from the column to its end, without the space around.
fn span(place: &Place) -> Range<usize> {
    let text = &place.text;
    let start = text.len() - text.trim_start().len();
    let column = (place.column as usize).saturating_sub(1);
    let from = match text.is_char_boundary(column) {
        true => column.max(start),
        false => start,
    };
    let end = text.trim_end().len();
    if from < end { from..end } else { start..end }
}

impl Explanation {
    /// The explanation as text: the lines of C, or of the program where it has none, with what
    /// happens at each; with the colours of terminals, or none.
    #[must_use]
    pub fn render(&self, coloured: bool) -> String {
        let renderer = match coloured {
            true => Renderer::styled(),
            false => Renderer::plain(),
        };
        let files = self.files();
        let title = self.said.last().map_or("", String::as_str);
        let head = match self.errno.as_str() {
            "" => Level::WARNING.with_name("unsupported").primary_title(title),
            errno => Level::ERROR.primary_title(title).id(errno),
        };
        let mut group = Group::with_title(head);
        for (file, lines) in &files {
            let (source, start, offsets) = sparse(lines);
            let marks = lines.iter().flat_map(|(n, line)| {
                let at = offsets[n];
                line.marks.iter().map(move |(span, label, primary)| {
                    let kind = match primary {
                        true => AnnotationKind::Primary,
                        false => AnnotationKind::Context,
                    };
                    kind.span(at + span.start..at + span.end)
                        .label(label.clone())
                })
            });
            let snippet = Snippet::source(source)
                .line_start(start)
                .path(file.clone())
                .annotations(marks);
            group = group.element(snippet);
        }
        for line in self.said.iter().rev().skip(1).rev() {
            group = group.element(Level::NOTE.with_name("log").message(line.clone()));
        }
        for found in &self.found {
            group = group.element(Level::NOTE.with_name("found").message(found.clone()));
        }
        group = group.element(
            Level::NOTE
                .with_name("required")
                .message(self.required.clone()),
        );
        group = group.element(Level::HELP.message(self.fix.clone()));
        renderer.term_width(WIDTH).render(&[group])
    }

    /// By file, the lines that something stands at. Programs without C lines show instructions,
    /// numbered as they are.
    fn files(&self) -> Vec<(String, BTreeMap<usize, Line>)> {
        let mut files: Vec<(String, BTreeMap<usize, Line>)> = Vec::new();
        let mut put = |place: &Option<Place>, insn: usize, asm: &str, label: String, primary| {
            let (file, number, text, span) = match place {
                Some(place) => (
                    place.file.rsplit('/').next().unwrap_or("").to_owned(),
                    place.line as usize,
                    place.text.clone(),
                    span(place),
                ),
                None => (
                    "instructions".to_owned(),
                    insn,
                    asm.to_owned(),
                    0..asm.len(),
                ),
            };
            let at = match files.iter().position(|f| f.0 == file) {
                Some(at) => at,
                None => {
                    files.push((file, BTreeMap::new()));
                    files.len() - 1
                }
            };
            let line = files[at].1.entry(number).or_default();
            line.text = text;
            line.marks.push((span, label, primary));
        };
        if let Some(insn) = self.insn {
            let label = format!("{insn}: {}", self.asm);
            put(&self.place, insn, &self.asm, label, true);
        }
        for cause in &self.because {
            let label = format!("{}: {}", cause.insn, cause.what);
            put(&cause.place, cause.insn, &cause.asm, label, false);
        }
        files
    }
}

/// Lines with those between them that nobody knows, the number of the first, and where each begins.
fn sparse(lines: &BTreeMap<usize, Line>) -> (String, usize, BTreeMap<usize, usize>) {
    let first = lines.keys().next().copied().unwrap_or(1);
    let mut source = String::new();
    let mut offsets = BTreeMap::new();
    let mut number = first;
    for (n, line) in lines {
        while number < *n {
            source.push('\n');
            number += 1;
        }
        offsets.insert(*n, source.len());
        source += &line.text.replace(['\n', '\r'], " ");
    }
    (source, first, offsets)
}
