//! What Linux did with a fixture: the `.linux.json` beside an object.
//!
//! Each program was loaded alone and run once by `BPF_PROG_TEST_RUN`, on one CPU, again and again; an
//! outcome is what it returned and what was in the maps after everything that it left behind had run.
//! Where Linux's own timing decides, there is more than one outcome, and more may be possible
//! than were seen.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Entries of a map, key and value in hexadecimal, sorted.
pub type Entries = Vec<(String, String)>;

/// Everything recorded for one object.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Recording {
    /// Kernel release, without what a distributor adds.
    pub kernel: String,
    /// How long callbacks were given after the program returned, ms.
    pub settle_ms: u64,
    /// Maps that were read, data sections by their section's name.
    pub maps: Vec<String>,
    /// Programs by name.
    pub programs: BTreeMap<String, RecordedProgram>,
}

/// One program.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedProgram {
    /// The packet that it ran on, in hexadecimal; none for a program that takes none.
    pub data_in: Option<String>,
    /// A program without input that is run before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// How often it was loaded and run.
    pub runs: u32,
    /// What came of it, the most frequent first.
    pub outcomes: Vec<Outcome>,
}

/// One thing that came of a program.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// What the program returned.
    pub return_value: i32,
    /// How many of the runs ended so.
    pub times: u32,
    /// The packet after it, in hexadecimal; none for a program that takes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_out: Option<String>,
    /// The maps after it.
    pub maps: BTreeMap<String, Entries>,
}

impl Recording {
    /// Reads a `.linux.json`.
    ///
    /// # Errors
    /// Where it is not one.
    pub fn parse(json: &str) -> Result<Recording, serde_json::Error> {
        serde_json::from_str(json)
    }

    /// Writes it, ending in a newline.
    pub fn to_json(&self) -> String {
        let mut json = serde_json::to_string_pretty(self).unwrap_or_default();
        json.push('\n');
        json
    }
}

impl RecordedProgram {
    /// The packet.
    ///
    /// # Errors
    /// What in it is not hexadecimal.
    pub fn packet(&self) -> Result<Vec<u8>, String> {
        from_hex(self.data_in.as_deref().unwrap_or_default())
    }

    /// Whether Linux was seen to end so, however often.
    pub fn allows(&self, outcome: &Outcome) -> bool {
        self.outcomes.iter().any(|known| known.same(outcome))
    }

    /// Counts one more run that ended so.
    pub fn add(&mut self, outcome: Outcome) {
        self.runs += 1;
        match self.outcomes.iter_mut().find(|known| known.same(&outcome)) {
            Some(known) => known.times += 1,
            None => self.outcomes.push(Outcome {
                times: 1,
                ..outcome
            }),
        }
        self.outcomes
            .sort_by_key(|known| std::cmp::Reverse(known.times));
    }
}

impl Outcome {
    fn same(&self, other: &Outcome) -> bool {
        let parts = |o: &Outcome| (o.return_value, o.data_out.clone(), o.maps.clone());
        parts(self) == parts(other)
    }
}

/// Entries as a recording has them.
pub fn entries(pairs: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> Entries {
    let mut entries: Entries = pairs
        .into_iter()
        .map(|(key, value)| (to_hex(&key), to_hex(&value)))
        .collect();
    entries.sort();
    entries
}

/// Lower-case hexadecimal.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Bytes of hexadecimal digits.
///
/// # Errors
/// The text, where it is not that.
pub fn from_hex(text: &str) -> Result<Vec<u8>, String> {
    let bad = || format!("not hexadecimal bytes: {text:?}");
    let digits = text.as_bytes().chunks(2);
    digits
        .map(|pair| match pair {
            // `from_str_radix` would take a sign too.
            [a, b] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => {
                let pair = std::str::from_utf8(pair).map_err(|_| bad())?;
                u8::from_str_radix(pair, 16).map_err(|_| bad())
            }
            _ => Err(bad()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_goes_there_and_back() {
        assert_eq!(from_hex(&to_hex(&[0, 1, 0xab])), Ok(vec![0, 1, 0xab]));
        assert!(from_hex("abc").is_err());
        assert!(from_hex("+1").is_err() && from_hex("ää").is_err());
    }
}
