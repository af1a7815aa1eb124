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
    marks: Vec<Mark>,
}

/// What a label says of a part of a line.
struct Mark {
    from: usize,
    label: String,
    primary: bool,
}

impl Line {
    /// Parts that do not overlap, each to where the next begins, with all that is said of it.
    fn parts(&self) -> Vec<(Range<usize>, String, bool)> {
        let mut starts: Vec<usize> = self.marks.iter().map(|m| m.from).collect();
        starts.sort_unstable();
        starts.dedup();
        let end = self.text.trim_end().len();
        let part = |(i, &from): (usize, &usize)| {
            let to = starts.get(i + 1).copied().unwrap_or(end);
            let here = || self.marks.iter().filter(|m| m.from == from);
            let labels: Vec<&str> = here().map(|m| m.label.as_str()).collect();
            (from..to, labels.join("; "), here().any(|m| m.primary))
        };
        starts.iter().enumerate().map(part).collect()
    }
}

/// Where the part of a line begins that is meant: at the column, or at the first character.
fn start(place: &Place) -> usize {
    let text = &place.text;
    let first = text.len() - text.trim_start().len();
    let column = (place.column as usize).saturating_sub(1);
    let inside = text.is_char_boundary(column) && column < text.trim_end().len();
    if inside { column.max(first) } else { first }
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
        let title = self.title.as_str();
        let head = match self.errno.as_str() {
            "" => Level::WARNING.with_name("unsupported").primary_title(title),
            errno => Level::ERROR.primary_title(title).id(errno),
        };
        let mut group = Group::with_title(head);
        for (file, lines) in &files {
            let (source, start, offsets) = sparse(lines);
            let marks = lines.iter().flat_map(|(n, line)| {
                let at = offsets[n];
                line.parts().into_iter().map(move |(part, label, primary)| {
                    let kind = match primary {
                        true => AnnotationKind::Primary,
                        false => AnnotationKind::Context,
                    };
                    kind.span(at + part.start..at + part.end).label(label)
                })
            });
            let snippet = Snippet::source(source)
                .line_start(start)
                .path(file.clone())
                .annotations(marks);
            group = group.element(snippet);
        }
        for line in self.said.iter().filter(|line| **line != self.title) {
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
        let mut put = |place: &Option<Place>, insn: usize, asm: &str, what: &str, primary| {
            let (file, number, text, from) = match place {
                Some(place) => (
                    place.file.rsplit('/').next().unwrap_or("").to_owned(),
                    place.line as usize,
                    place.text.clone(),
                    start(place),
                ),
                None => ("instructions".to_owned(), insn, asm.to_owned(), 0),
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
            let label = format!("{insn}: {what}");
            line.marks.push(Mark {
                from,
                label,
                primary,
            });
        };
        let last = self.because.len().wrapping_sub(1);
        for (i, cause) in self.because.iter().enumerate() {
            // Of what is found when the walk is over the last cause is what it is about.
            let primary = self.insn.is_none() && i == last;
            put(&cause.place, cause.insn, &cause.asm, &cause.what, primary);
        }
        if let Some(insn) = self.insn {
            put(&self.place, insn, &self.asm, &self.asm, true);
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
