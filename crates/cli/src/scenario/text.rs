//! Texts of a scenario's file: bytes, times, and names that are nearly right.

use super::{Problem, wrong};
use std::time::Duration;
use toml::Spanned;

/// Bytes written in hexadecimal, spaces ignored.
pub fn unhex(text: &Spanned<String>) -> Result<Vec<u8>, Problem> {
    let digits: Vec<u32> = text
        .get_ref()
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).ok_or(c))
        .collect::<Result<_, char>>()
        .or_else(|c| wrong(text.span(), format!("`{c}` is no hexadecimal digit")))?;
    if !digits.len().is_multiple_of(2) {
        return wrong(text.span(), "an odd number of hexadecimal digits");
    }
    Ok(digits.chunks(2).map(|d| (d[0] << 4 | d[1]) as u8).collect())
}

/// `5ms` and so on.
pub fn time(text: &Spanned<String>) -> Result<Duration, Problem> {
    crate::run::duration(text.get_ref()).or_else(|e| wrong(text.span(), e))
}

/// The name that is nearest to one that there is not.
pub fn nearest(name: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let score = |k: &String| strsim::normalized_damerau_levenshtein(name, k);
    let scored = known.map(|k| (score(&k), k)).filter(|(s, _)| *s > 0.5);
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)));
    best.map(|(_, name)| name)
}

/// What the reader of TOML says, and of a key that there is not, the one that was likely meant.
pub fn explained(message: &str) -> String {
    let unknown = ["unknown field `", "unknown variant `"];
    let Some(rest) = unknown.iter().find_map(|u| message.strip_prefix(u)) else {
        return message.to_string();
    };
    // The names stand between backticks, of which the first was taken off.
    let name = rest.split('`').next().unwrap_or_default();
    let known: Vec<String> = rest
        .split('`')
        .skip(2)
        .step_by(2)
        .map(str::to_string)
        .collect();
    match nearest(name, known.iter().cloned()) {
        Some(near) => format!("unknown key `{name}`; did you mean `{near}`?"),
        None => format!("unknown key `{name}`; there are {}", known.join(", ")),
    }
}
