//! Files that a timeline is written to.

use crate::Stop;
use bpfsim::Record;
use bpfsim::timeline::Timeline;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Files {
    /// Write the timeline as a page for browsers, with every visible operation and its C line.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write the timeline as a Chrome trace, which Perfetto reads too.
    #[arg(long, value_name = "FILE")]
    perfetto: Option<PathBuf>,
}

impl Files {
    /// True when there are any.
    pub fn wanted(&self) -> bool {
        self.html.is_some() || self.perfetto.is_some()
    }

    /// What they take to be recorded.
    pub fn record(&self) -> Record {
        Record {
            moments: self.wanted(),
            ..Record::default()
        }
    }

    /// Writes them.
    pub fn write(&self, timeline: &Timeline) -> Result<(), Stop> {
        let write = |path: &Option<PathBuf>, text: fn(&Timeline) -> String| match path {
            Some(path) => std::fs::write(path, text(timeline))
                .map_err(|e| Stop::unusable(format!("{}: {e}", path.display()))),
            None => Ok(()),
        };
        write(&self.html, Timeline::html)?;
        write(&self.perfetto, Timeline::perfetto)
    }
}
