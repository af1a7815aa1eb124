//! What there is to ask of a scheduler.

use super::{Custody, Scx, ScxExit, ScxPlace, Stage};
use crate::ids::{Cpu, MapId, TaskId};
use crate::kernel::Kernel;

impl Kernel {
    /// Why the scheduler goes, or has gone.
    pub fn scx_exit(&self) -> Option<&ScxExit> {
        self.st.scx.as_ref()?.exit.as_ref()
    }

    /// The name of the scheduler that is there.
    pub fn scx_name(&self) -> Option<&str> {
        let scx = self.st.scx.as_ref()?;
        (scx.stage != Stage::Disabled).then_some(&scx.ops.name)
    }

    /// The map of the scheduler that was enabled last.
    pub fn scx_map(&self) -> Option<MapId> {
        self.st.scx.as_ref().map(|s| s.map)
    }

    /// Where the scheduler has a task.
    pub fn scx_place(&self, task: TaskId) -> ScxPlace {
        let scx = self.st.scx.as_ref();
        scx.map_or(ScxPlace::Asleep, |s| s.place(task))
    }

    /// The task of the scheduler that a CPU executes.
    pub fn scx_running(&self, cpu: Cpu) -> Option<TaskId> {
        let scx = self.st.scx.as_ref()?;
        (cpu.at() < scx.rqs.len()).then(|| scx.curr(cpu.0))?
    }

    /// The tasks in a queue that the scheduler made, the first one first; `None` without such a one.
    pub fn scx_dsq(&self, id: u64) -> Option<Vec<TaskId>> {
        let dsq = self.st.scx.as_ref()?.dsqs.get(&super::Q::User(id))?;
        Some(dsq.tasks().collect())
    }

    /// What is left of a task's slice, in ns, as its `scx.slice` says it.
    pub fn scx_slice(&self, task: TaskId) -> Option<u64> {
        let scx = self.st.scx.as_ref()?;
        scx.tasks.get(&task)?;
        Some(scx.slice(&self.mem, task))
    }
}

impl Scx {
    /// A task's `enqueue` runs.
    pub fn is_enqueueing(&self, task: TaskId) -> bool {
        let custody = self.tasks.get(&task).map(|e| e.custody);
        matches!(custody, Some(Custody::Queueing(_)))
    }
}
