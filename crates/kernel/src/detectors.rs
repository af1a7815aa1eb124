//! Which detectors look, as text.

use crate::failure::{Detectors, Report};

/// A detector's setting within [`Detectors`].
type Of = fn(&mut Detectors) -> &mut Report;

/// Detectors that can be told what to do, by the names of their findings
/// ([`FailureKind::name`](crate::FailureKind::name)).
const NAMES: &[(&str, Of)] = &[
    ("stale-access", |d| &mut d.stale),
    ("unwritten-argument", |d| &mut d.unwritten_argument),
    ("lost-update", |d| &mut d.lost_update),
    ("data-race", |d| &mut d.data_race),
    ("never-ran", |d| &mut d.dropped),
];

/// A text does not say what detectors do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}`: detectors are `stale-access`, `unwritten-argument`, `lost-update`, `data-race` and `never-ran`, \
     each followed by `=off`, `=warn` or `=fail`; `off`, `warn` or `fail` alone is of them all"
)]
pub struct NoDetectors(pub String);

fn report(text: &str) -> Option<Report> {
    match text {
        "off" => Some(Report::Off),
        "warn" => Some(Report::Warn),
        "fail" => Some(Report::Fail),
        _ => None,
    }
}

impl Detectors {
    /// Tells detectors what to do, for the command line and `BPFSIM_DETECTORS`: `lost-update=fail`,
    /// several with commas, or `off`, `warn` or `fail` for all. What is not named stays as it is.
    ///
    /// # Errors
    /// The first word that says nothing; then nothing is changed.
    ///
    /// ```
    /// use bpfsim_kernel::{Detectors, Report};
    ///
    /// let mut detectors = Detectors::default();
    /// detectors.tell("off, lost-update=fail")?;
    /// assert_eq!(detectors.lost_update, Report::Fail);
    /// assert_eq!(detectors.data_race, Report::Off);
    /// assert!(detectors.tell("lost_update=fail").is_err());
    /// # Ok::<(), bpfsim_kernel::NoDetectors>(())
    /// ```
    pub fn tell(&mut self, text: &str) -> Result<(), NoDetectors> {
        let mut told = *self;
        for word in text.split(',').map(str::trim).filter(|w| !w.is_empty()) {
            let wrong = || NoDetectors(word.to_string());
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (Some(name), value),
                None => (None, word),
            };
            let value = report(value).ok_or_else(wrong)?;
            let mut named = NAMES
                .iter()
                .filter(|(n, _)| name.is_none_or(|name| name == *n));
            let first = named.next().ok_or_else(wrong)?;
            for (_, of) in std::iter::once(first).chain(named) {
                *of(&mut told) = value;
            }
        }
        *self = told;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_what_they_say_or_errors() {
        let told = |text: &str| {
            let mut detectors = Detectors::default();
            detectors.tell(text).map(|()| detectors)
        };
        assert_eq!(told("off"), Ok(Detectors::OFF));
        assert_eq!(told(""), Ok(Detectors::default()));
        let race = Detectors {
            data_race: Report::Fail,
            ..Detectors::default()
        };
        assert_eq!(told(" data-race=fail,"), Ok(race));
        for wrong in [
            "races",
            "data-race",
            "data-race=yes",
            "deadlock=off",
            "=off",
        ] {
            let word = NoDetectors(wrong.to_string());
            assert_eq!(told(&format!("off,{wrong}")), Err(word), "{wrong}");
        }
    }
}
