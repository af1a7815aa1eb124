//! The environment variables that this crate knows: the only place that reads them.

use bpfsim_explore::Runner;
use bpfsim_kernel::{Chances, Detectors};
use std::path::PathBuf;
use std::time::Duration;

/// A variable: its name, what it says, and how it is taken up. `Err` says what is wrong with it.
type Row = (
    &'static str,
    &'static str,
    fn(&mut Settings, &str) -> Result<(), &'static str>,
);

/// What the environment asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    pub threads: Option<usize>,
    pub seed: Option<u64>,
    pub executions: Option<u64>,
    pub time_limit: Option<Duration>,
    pub shard: Option<(u64, u64)>,
    pub shrink: Option<u64>,
    pub chances: Option<Chances>,
    /// What detectors are told.
    pub detectors: Option<String>,
    /// Where failing orders are kept; `Some(None)` for nowhere.
    pub regressions: Option<Option<PathBuf>>,
}

/// All of them. Those without a meaning here are of bpfsim's own tests.
const TABLE: &[Row] = &[
    ("BPFSIM_THREADS", "threads of an exploration", |s, v| {
        s.threads = Some(number(v)?.max(1) as usize);
        Ok(())
    }),
    ("BPFSIM_SEED", "seed of the first random order", |s, v| {
        s.seed = Some(number(v)?);
        Ok(())
    }),
    ("BPFSIM_EXECUTIONS", "most executions of a test", |s, v| {
        s.executions = Some(number(v)?);
        Ok(())
    }),
    ("BPFSIM_TIME_LIMIT", "most seconds of a test", |s, v| {
        s.time_limit = Some(Duration::from_secs(number(v)?));
        Ok(())
    }),
    ("BPFSIM_SHARD", "part i/n of the work, i from 1", |s, v| {
        s.shard = Some(shard(v)?);
        Ok(())
    }),
    ("BPFSIM_SHRINK", "most executions of shrinking", |s, v| {
        s.shrink = Some(number(v)?);
        Ok(())
    }),
    (
        "BPFSIM_CHANCES",
        "what is a choice beside the order: `random`, `failures`, `faults`, with bounds",
        |s, v| {
            s.chances = Some(v.parse().map_err(|_| "no chances")?);
            Ok(())
        },
    ),
    (
        "BPFSIM_DETECTORS",
        "which detectors look, such as `lost-update=fail`: `off`, `warn` or `fail`, one or all",
        |s, v| {
            let tried = Detectors::default().tell(v);
            tried.map_err(|_| "no detectors, or not `=off`, `=warn`, `=fail`")?;
            s.detectors = Some(v.to_string());
            Ok(())
        },
    ),
    (
        "BPFSIM_REGRESSIONS",
        "folder for failing orders, or `off`",
        |s, v| {
            s.regressions = Some((v != "off").then(|| PathBuf::from(v)));
            Ok(())
        },
    ),
    ("BPFSIM_MAP_SEQUENCES", "sequences of map tests", |_, _| {
        Ok(())
    }),
    ("BPFSIM_RECORD_MAPS", "record map tests", |_, _| Ok(())),
];

fn number(text: &str) -> Result<u64, &'static str> {
    text.parse().map_err(|_| "not a number")
}

/// Reads `i/n`, i from 1, as (part from 0, parts).
pub fn shard(text: &str) -> Result<(u64, u64), &'static str> {
    let wrong = "not of the form i/n with i from 1 to n";
    let (i, n) = text.split_once('/').ok_or(wrong)?;
    let (i, n) = (number(i).map_err(|_| wrong)?, number(n).map_err(|_| wrong)?);
    match (1..=n).contains(&i) {
        true => Ok((i - 1, n)),
        false => Err(wrong),
    }
}

impl Settings {
    /// What this process's environment asks for; unknown names are an error.
    pub fn of_environment() -> Result<Settings, String> {
        let all = std::env::vars_os();
        Settings::of(all.map(|(k, v)| (k.to_string_lossy().into(), v.to_string_lossy().into())))
    }

    fn of(variables: impl Iterator<Item = (String, String)>) -> Result<Settings, String> {
        let mut settings = Settings::default();
        for (name, value) in variables.filter(|(name, _)| name.starts_with("BPFSIM_")) {
            let Some((_, _, take)) = TABLE.iter().find(|row| row.0 == name) else {
                let known = TABLE
                    .iter()
                    .map(|(name, what, _)| format!("\n  {name}: {what}"));
                let known: String = known.collect();
                return Err(format!("{name}: no such variable; there are{known}"));
            };
            take(&mut settings, &value).map_err(|wrong| format!("{name}={value}: {wrong}"))?;
        }
        Ok(settings)
    }

    /// Has the environment's word over a runner's.
    pub fn apply(&self, runner: &mut Runner) {
        fn set<T: Clone>(to: &mut T, from: &Option<T>) {
            if let Some(value) = from {
                *to = value.clone();
            }
        }
        set(&mut runner.threads, &self.threads);
        set(&mut runner.seed, &self.seed);
        set(&mut runner.executions, &self.executions);
        set(&mut runner.shard, &self.shard);
        set(&mut runner.shrink, &self.shrink);
        set(&mut runner.config.chances, &self.chances);
        if let Some(told) = &self.detectors {
            // It was tried when it was read.
            let _ = runner.config.detectors.tell(told);
        }
        runner.time_limit = self.time_limit.or(runner.time_limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, value: &str) -> Result<Settings, String> {
        let others = ("PATH".to_string(), "/bin".to_string());
        Settings::of([others, (name.to_string(), value.to_string())].into_iter())
    }

    #[test]
    fn known_ones_are_taken_up_and_others_are_errors() {
        assert_eq!(of("HOME", "/"), Ok(Settings::default()));
        assert_eq!(of("BPFSIM_SHARD", "2/3").unwrap().shard, Some((1, 3)));
        assert_eq!(
            of("BPFSIM_REGRESSIONS", "off").unwrap().regressions,
            Some(None)
        );
        for (name, value) in [
            ("BPFSIM_SHARD", "0/3"),
            ("BPFSIM_SHARD", "4/3"),
            ("BPFSIM_THREADS", "two"),
            ("BPFSIM_THREAD", "2"),
            ("BPFSIM_CHANCES", "luck"),
            ("BPFSIM_DETECTORS", "lost-update"),
        ] {
            let error = of(name, value).unwrap_err();
            assert!(error.starts_with(name), "{error}");
        }
    }
}
