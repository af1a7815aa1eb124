//! Dispatch queues: what is inserted, taken and moved, with what Linux refuses.

use super::consts::{Counter, dsq, enq};
use super::{Custody, Direct, Insert, On, Scx};
use crate::ids::TaskId;
use bpfsim_vm::GuestMem;

/// Which queue.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Q {
    /// Of a CPU.
    Local(u32),
    Global,
    /// Made by the scheduler.
    User(u64),
    /// Of a CPU while the scheduler is passed over.
    Bypass(u32),
}

impl Q {
    fn is_user(self) -> bool {
        matches!(self, Q::User(_))
    }
}

/// What a queue is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Node {
    Task(TaskId),
    /// An iterator stands here.
    Cursor(u64),
}

/// `struct scx_dispatch_q`
#[derive(Clone, Default)]
pub(crate) struct Dsq {
    pub nodes: Vec<Node>,
    pub nr: u32,
    /// Tasks in it that are ordered by virtual time.
    pub priq: u32,
    pub seq: u32,
}

impl Dsq {
    pub fn tasks(&self) -> impl Iterator<Item = TaskId> {
        self.nodes.iter().filter_map(|n| match n {
            Node::Task(task) => Some(*task),
            Node::Cursor(_) => None,
        })
    }
}

/// `u32_before`
pub(crate) fn before32(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

/// `time_before64`
fn before64(a: u64, b: u64) -> bool {
    (a.wrapping_sub(b) as i64) < 0
}

impl Scx {
    pub fn dsq(&mut self, q: Q) -> &mut Dsq {
        self.dsqs.entry(q).or_default()
    }

    pub fn nr(&self, q: Q) -> u32 {
        self.dsqs.get(&q).map_or(0, |d| d.nr)
    }

    /// `find_user_dsq`
    pub fn user_dsq(&self, id: u64) -> Option<Q> {
        let q = Q::User(id);
        self.dsqs.contains_key(&q).then_some(q)
    }

    /// `find_dsq_for_dispatch`, on a CPU.
    pub fn dsq_for(&mut self, cpu: u32, id: u64, task: TaskId) -> Q {
        if id == dsq::LOCAL {
            return Q::Local(cpu);
        }
        if id & dsq::LOCAL_ON == dsq::LOCAL_ON {
            let to = (id & dsq::LOCAL_CPU_MASK) as u32;
            return match self.cpu_valid(to as i32, "in SCX_DSQ_LOCAL_ON dispatch verdict") {
                true => Q::Local(to),
                false => Q::Global,
            };
        }
        if id == dsq::GLOBAL {
            return Q::Global;
        }
        self.user_dsq(id).unwrap_or_else(|| {
            let name = self.name(task).to_string();
            self.error(format!("non-existent DSQ {id:#x} for {name}"));
            Q::Global
        })
    }

    /// `dispatch_enqueue`
    pub fn insert(&mut self, mem: &mut GuestMem, q: Q, task: TaskId, flags: u64) {
        let mut q = q;
        let mut flags = flags;
        if q.is_user() && !self.dsqs.contains_key(&q) {
            self.error("attempting to dispatch to a destroyed dsq".to_string());
            q = Q::Global;
        }
        if !q.is_user() && flags & enq::DSQ_PRIQ != 0 {
            self.error("cannot use vtime ordering for built-in DSQs".to_string());
            flags &= !enq::DSQ_PRIQ;
        }
        let (nr, priq) = (self.nr(q), self.dsq(q).priq);
        let by_vtime = flags & enq::DSQ_PRIQ != 0;
        let id = match q {
            Q::User(id) => id,
            _ => 0,
        };
        if by_vtime && priq == 0 && nr > 0 {
            self.error(format!("DSQ ID {id:#018x} already had FIFO-enqueued tasks"));
        }
        if !by_vtime && priq > 0 {
            self.error(format!("DSQ ID {id:#018x} already had PRIQ-enqueued tasks"));
        }
        let at = match by_vtime {
            true => self.vtime_place(mem, q, task),
            false if flags & (self.layout.enq_head | enq::PREEMPT) != 0 => 0,
            false => self.dsq(q).nodes.len(),
        };
        self.place_at(q, task, at, by_vtime);
        if let Some(e) = self.tasks.get_mut(&task) {
            e.direct = None;
            e.custody = Custody::None;
        }
        if let Q::Local(cpu) = q {
            self.inserted_local(mem, cpu, task, flags);
        }
    }

    /// What a local queue's CPU is told.
    fn inserted_local(&mut self, mem: &mut GuestMem, cpu: u32, task: TaskId, flags: u64) {
        match self.rqs[cpu as usize].on {
            On::Task(curr) if flags & enq::PREEMPT != 0 && curr != task => {
                self.set_slice(mem, curr, 0);
                self.resched(cpu);
            }
            On::Idle => self.resched(cpu),
            On::Task(_) | On::Higher => {}
        }
    }

    /// Behind the last one whose virtual time is not after the task's.
    fn vtime_place(&mut self, mem: &GuestMem, q: Q, task: TaskId) -> usize {
        let vtime = self.vtime(mem, task);
        let nodes = &self.dsqs[&q].nodes;
        let earlier = |n: &Node| match *n {
            Node::Task(t) => {
                let on_priq = self.tasks.get(&t).is_some_and(|e| e.on_priq);
                on_priq && !before64(vtime, self.vtime(mem, t))
            }
            Node::Cursor(_) => false,
        };
        nodes.iter().rposition(earlier).map_or(0, |i| i + 1)
    }

    fn place_at(&mut self, q: Q, task: TaskId, at: usize, by_vtime: bool) {
        let dsq = self.dsq(q);
        dsq.nodes.insert(at, Node::Task(task));
        dsq.nr += 1;
        dsq.priq += u32::from(by_vtime);
        dsq.seq = dsq.seq.wrapping_add(1);
        let seq = dsq.seq;
        if let Some(e) = self.tasks.get_mut(&task) {
            (e.on, e.on_priq, e.seq) = (Some(q), by_vtime, seq);
        }
    }

    /// `dispatch_dequeue`
    pub fn remove(&mut self, task: TaskId) {
        let Some(e) = self.tasks.get_mut(&task) else {
            return;
        };
        let on_priq = std::mem::take(&mut e.on_priq);
        if std::mem::take(&mut e.deferred) {
            let cpu = e.cpu as usize;
            self.rqs[cpu].deferred.retain(|&t| t != task);
        }
        let Some(q) = self.tasks.get_mut(&task).and_then(|e| e.on.take()) else {
            return;
        };
        let dsq = self.dsq(q);
        dsq.nodes.retain(|n| *n != Node::Task(task));
        dsq.nr = dsq.nr.saturating_sub(1);
        dsq.priq -= u32::from(on_priq);
    }

    /// `task_can_run_on_remote_rq`
    fn can_move(&mut self, task: TaskId, to: u32, enforce: bool) -> bool {
        let allowed = self.tasks.get(&task).map_or(0, |e| e.allowed);
        let may = allowed & 1 << to != 0;
        if !may && enforce {
            let name = self.name(task).to_string();
            self.error(format!(
                "SCX_DSQ_LOCAL[_ON] target CPU {to} not allowed for {name}"
            ));
        }
        may
    }

    /// Puts a task, which is in no queue, into the local one of a CPU, where that may be
    /// (`dispatch_to_local_dsq`).
    pub fn insert_local(&mut self, mem: &mut GuestMem, to: u32, task: TaskId, flags: u64) {
        let from = self.tasks.get(&task).map_or(to, |e| e.cpu);
        if from != to && !self.can_move(task, to, true) {
            self.insert(mem, Q::Global, task, flags);
            return;
        }
        self.migrate(mem, task, to);
        self.insert(mem, Q::Local(to), task, flags);
    }

    /// `set_task_cpu`
    pub fn migrate(&mut self, mem: &mut GuestMem, task: TaskId, to: u32) {
        if let Some(e) = self.tasks.get_mut(&task) {
            e.cpu = to;
        }
        self.show(mem, task);
    }

    /// `consume_dispatch_q`: takes the first task that may run on a CPU to its local queue.
    pub fn consume(&mut self, mem: &mut GuestMem, cpu: u32, q: Q) -> bool {
        let tasks: Vec<TaskId> = self
            .dsqs
            .get(&q)
            .map_or(Vec::new(), |d| d.tasks().collect());
        for task in tasks {
            let from = self.tasks.get(&task).map_or(cpu, |e| e.cpu);
            if from == cpu || self.can_move(task, cpu, false) {
                self.remove(task);
                self.migrate(mem, task, cpu);
                let at = self.dsq(Q::Local(cpu)).nodes.len();
                self.place_at(Q::Local(cpu), task, at, false);
                return true;
            }
        }
        false
    }

    /// `move_task_between_dsqs`, of a task that is in one.
    pub fn move_to(&mut self, mem: &mut GuestMem, task: TaskId, to: Q, flags: u64) {
        let from = self.tasks.get(&task).map_or(0, |e| e.cpu);
        let to = match to {
            Q::Local(cpu) if cpu != from && !self.can_move(task, cpu, true) => Q::Global,
            to => to,
        };
        self.remove(task);
        match to {
            Q::Local(cpu) if cpu == from => {
                let head = flags & (self.layout.enq_head | enq::PREEMPT) != 0;
                let at = if head { 0 } else { self.dsq(to).nodes.len() };
                self.place_at(to, task, at, false);
            }
            Q::Local(cpu) => {
                self.migrate(mem, task, cpu);
                self.insert(mem, to, task, flags);
            }
            _ => self.insert(mem, to, task, flags),
        }
    }

    /// `scx_dsq_insert_commit`: what `scx_bpf_dsq_insert` keeps for later.
    pub fn commit(&mut self, cpu: u32, task: TaskId, id: u64, flags: u64) {
        let rq = &mut self.rqs[cpu as usize];
        match std::mem::replace(&mut rq.direct, Direct::Spoilt) {
            Direct::None => rq.direct = Direct::None,
            Direct::Task(of) if of == task => {
                if let Some(e) = self.tasks.get_mut(&task) {
                    e.direct = Some((id, flags));
                }
                return;
            }
            Direct::Task(of) => {
                let (of, other) = (self.name(of).to_string(), self.name(task).to_string());
                self.error(format!(
                    "scheduling for {of} but trying to direct-dispatch {other}"
                ));
                return;
            }
            Direct::Spoilt => {
                let name = self.name(task).to_string();
                self.error(format!("{name} already direct-dispatched"));
                return;
            }
        }
        let qseq = match self.tasks.get(&task).map(|e| e.custody) {
            Some(Custody::Queueing(qseq) | Custody::Queued(qseq)) => qseq,
            _ => 0,
        };
        let full = self.rqs[cpu as usize].batch.len() >= self.ops.max_batch as usize;
        if full {
            self.error("dispatch buffer overflow".to_string());
            return;
        }
        self.rqs[cpu as usize].batch.push(Insert {
            task,
            qseq,
            dsq: id,
            flags,
        });
    }

    /// The task of a CPU's batch whose `enqueue` runs: the batch has to wait for that.
    pub fn awaited(&self, cpu: u32) -> Option<TaskId> {
        let batch = self.rqs[cpu as usize].batch.iter();
        let mut queueing = batch.filter(|i| {
            let custody = self.tasks.get(&i.task).map(|e| e.custody);
            matches!(custody, Some(Custody::Queueing(_)))
        });
        queueing.next().map(|i| i.task)
    }

    /// `flush_dispatch_buf`, once nobody is [awaited](Scx::awaited).
    pub fn flush(&mut self, mem: &mut GuestMem, cpu: u32) {
        let batch = std::mem::take(&mut self.rqs[cpu as usize].batch);
        self.rqs[cpu as usize].given += batch.len() as u32;
        for i in batch {
            // Whoever is not the scheduler's by now was dispatched or dequeued meanwhile.
            let custody = self.tasks.get(&i.task).map(|e| e.custody);
            if custody != Some(Custody::Queued(i.qseq)) {
                continue;
            }
            match self.dsq_for(cpu, i.dsq, i.task) {
                Q::Local(to) => self.insert_local(mem, to, i.task, i.flags),
                q => self.insert(mem, q, i.task, i.flags),
            }
        }
    }

    /// `direct_dispatch`, and what it puts off to the end of the operation: of a task whose run
    /// queue is locked.
    pub fn dispatch_directly(&mut self, mem: &mut GuestMem, task: TaskId, more: u64) {
        let Some(e) = self.tasks.get_mut(&task) else {
            return;
        };
        let (cpu, Some((id, flags))) = (e.cpu, e.direct) else {
            return;
        };
        e.direct = Some((id, flags | more));
        match self.dsq_for(cpu, id, task) {
            Q::Local(to) if to != cpu => {
                if let Some(e) = self.tasks.get_mut(&task) {
                    (e.custody, e.deferred) = (Custody::None, true);
                }
                self.rqs[cpu as usize].deferred.push(task);
            }
            q => self.insert(mem, q, task, flags | more),
        }
    }

    /// `process_ddsp_deferred_locals`
    pub fn run_deferred(&mut self, mem: &mut GuestMem, cpu: u32) {
        for task in std::mem::take(&mut self.rqs[cpu as usize].deferred) {
            let Some(e) = self.tasks.get_mut(&task) else {
                continue;
            };
            e.deferred = false;
            let Some((id, flags)) = e.direct else {
                continue;
            };
            match self.dsq_for(cpu, id, task) {
                Q::Local(to) => self.insert_local(mem, to, task, flags),
                q => self.insert(mem, q, task, flags),
            }
        }
    }

    /// `refill_task_slice_dfl`
    pub fn refill(&mut self, mem: &mut GuestMem, task: TaskId) {
        self.set_slice(mem, task, super::consts::SLICE_DFL);
        self.count(Counter::RefillSliceDfl);
    }
}
