//! For browsers: one file that needs nothing else.

use super::{Detail, Timeline};

const PAGE: &str = include_str!("page.html");

impl Timeline {
    /// As a page.
    pub fn html(&self) -> String {
        // `<` would end the script early in a text that says so.
        let data = serde_json::to_string(self)
            .unwrap_or_default()
            .replace('<', "\\u003c");
        let (title, text) = (escape(&self.title), escape(&self.text(Detail::All)));
        let mut page = String::with_capacity(PAGE.len() + data.len() + text.len());
        let mut rest = PAGE;
        // In one pass, so that nothing is replaced in what was put in.
        while let Some(at) = rest.find("__") {
            page.push_str(&rest[..at]);
            let marks = [
                ("__TITLE__", &title),
                ("__TEXT__", &text),
                ("__DATA__", &data),
            ];
            let mark = marks.iter().find(|(mark, _)| rest[at..].starts_with(mark));
            let (len, with) = mark.map_or((2, "__"), |(mark, with)| (mark.len(), with.as_str()));
            page.push_str(with);
            rest = &rest[at + len..];
        }
        page + rest
    }
}

fn escape(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;").replace('"', "&quot;")
}
