//! Files that a timeline is written to, and a kernel's types are read from.

use crate::Stop;
use bpfsim::timeline::Timeline;
use bpfsim::{KernelBtf, Record};
use std::path::{Path, PathBuf};

/// Whose types kernel objects are laid out by, and programs resolved and verified against.
#[derive(clap::Args)]
pub struct Types {
    /// A kernel's own types, such as /sys/kernel/btf/vmlinux: raw BTF. Without it, those of a 6.18
    /// without sched_ext.
    #[arg(long, value_name = "FILE")]
    btf: Option<PathBuf>,
}

impl Types {
    /// Reads them, if they are asked for.
    pub fn read(&self) -> Result<Option<KernelBtf>, Stop> {
        let read = |file| types(file).map_err(Stop::unusable);
        self.btf.as_deref().map(read).transpose()
    }

    /// The option that asks for them again.
    pub fn again(&self) -> String {
        let file = self.btf.as_deref().map(Path::display);
        file.map_or_else(String::new, |file| format!(" --btf {file}"))
    }
}

/// Reads a kernel's types.
pub fn types(file: &Path) -> Result<KernelBtf, String> {
    let name = file.display();
    let bytes = std::fs::read(file).map_err(|e| format!("{name}: {e}"))?;
    KernelBtf::parse(&bytes).map_err(|e| format!("{name}: {e}"))
}

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
