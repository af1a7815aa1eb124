//! Iterators read as files: `bpf_seq_read` with its programs as callbacks.

use super::target::{Cursor, Found, IterInfo, Over, Target};
use super::{AttachError, Hook, LinkId};
use crate::failure::Failure;
use crate::ids::{Cpu, CtxId, ProgId, TaskId};
use crate::kernel::Kernel;
use crate::prog::{Arg, ProgCtx};
use crate::run::{Phase, Run, Running};
use crate::shared::Shared;
use crate::state::{AtHook, Cur};
use crate::syscall::SysResult;
use crate::touch::Touch;
use crate::trace::{Level, What};
use crate::world::NsKind;
use bpfsim_abi::Errno;
use bpfsim_vm::STACK_SIZE;

/// An iterator that was opened (`BPF_ITER_CREATE`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct IterFd(pub(crate) u32);

/// An open iterator.
#[derive(Clone, Debug)]
pub(crate) struct IterFile {
    over: Over,
    prog: ProgId,
    cookie: u64,
    /// Guest address of its `struct bpf_iter_meta`; its `struct seq_file` is behind that.
    meta: u64,
    seq_num: u64,
    /// The program was told that there are no more.
    done: bool,
    /// Written and not read yet.
    text: Vec<u8>,
    /// Where the next object is.
    from: Cursor,
    open: bool,
    /// Somebody reads it.
    busy: bool,
}

/// A read of an iterator that goes on.
#[derive(Clone)]
pub(crate) struct Reading {
    id: CtxId,
    task: TaskId,
    file: IterFd,
    /// Bytes that are wanted.
    len: usize,
    made: u32,
    /// Objects so far.
    objects: u32,
    /// How much was written before the object at hand.
    before: usize,
    /// Where those after it are; none of the last call.
    next: Option<Cursor>,
    /// Memory that was made for the program.
    kept: Vec<u64>,
    /// No more: a program of cgroups said so.
    ends: bool,
    /// Where the context is.
    ctx: u64,
}

/// Where in `struct bpf_iter_meta` is what; its size.
const SEQ: u64 = 0;
const SESSION: u64 = 8;
const SEQ_NUM: u64 = 16;
const META: u64 = 24;
/// Most objects of one read (`MAX_ITER_OBJECTS`).
const MAX_OBJECTS: u32 = 1_000_000;

impl Kernel {
    /// Opens an iterator (`BPF_ITER_CREATE`): its link can go, the program stays. `EINVAL` for a link
    /// of something else, `ENOLINK` for one that is gone.
    pub fn iter_create(&mut self, link: LinkId) -> Result<IterFd, AttachError> {
        let refused = |errno| AttachError::Refused {
            what: "an iterator".to_string(),
            errno,
            why: None,
        };
        let link = self.st.links.get(link);
        let link = link.ok_or_else(|| refused(Errno::ENOLINK))?;
        let place = link.places.first().map(|p| (&p.hook, p.cookie));
        let Some((Hook::Iter(name), cookie)) = place else {
            return Err(refused(Errno::EINVAL));
        };
        let Some(target) = Target::of(name) else {
            return Err(AttachError::Unsupported {
                what: format!("iterators over {name}: there are none here"),
            });
        };
        let (prog, info) = (link.prog, link.iter.unwrap_or_default());
        let opener = &self.st.tasks[self.main_task().at()];
        let (pids, net) = (opener.pid_ns, opener.namespaces[NsKind::Net as usize]);
        let size = META + self.layouts.size_of("seq_file");
        let meta = self.st.buffer(&mut self.mem, size as u32);
        let meta = meta.ok_or_else(|| refused(Errno::ENOMEM))?;
        if let Some(bytes) = self.mem.slice_mut(meta, size) {
            bytes.fill(0);
        }
        self.mem.write_u64(meta + SEQ, meta + META);
        self.st.refs.get_prog(prog);
        self.st.iter_sessions += 1;
        let session = self.st.iter_sessions;
        self.mem.write_u64(meta + SESSION, session);
        self.st.iters.push(IterFile {
            over: Over {
                target,
                info,
                pids,
                net,
            },
            prog,
            cookie,
            meta,
            seq_num: 0,
            done: false,
            text: Vec::new(),
            from: Cursor::START,
            open: true,
            busy: false,
        });
        Ok(IterFd(self.st.iters.len() as u32 - 1))
    }

    /// `close(2)` of an iterator. `EBADF` for one that is not open, `EBUSY` while somebody reads it.
    pub fn iter_close(&mut self, file: IterFd) -> Result<(), Errno> {
        let found = self.st.iters.get_mut(file.0 as usize);
        let f = found.filter(|f| f.open).ok_or(Errno::EBADF)?;
        if f.busy {
            return Err(Errno::EBUSY);
        }
        f.open = false;
        let (prog, meta) = (f.prog, f.meta);
        self.st.refs.put_prog(prog);
        self.st.obj_drop(&mut self.mem, meta);
        Ok(())
    }

    /// A read does not go on: its task is gone.
    pub(crate) fn iter_dropped(&mut self, reading: &Reading) {
        self.iter(reading.file).busy = false;
    }

    fn iter(&mut self, file: IterFd) -> &mut IterFile {
        &mut self.st.iters[file.0 as usize]
    }

    /// What keeps a read from beginning.
    pub(crate) fn check_iter_read(&self, file: IterFd) -> Result<(), Errno> {
        match self.st.iters.get(file.0 as usize) {
            Some(f) if f.open => Ok(()),
            _ => Err(Errno::EBADF),
        }
    }

    /// `bpf_seq_read` begins, in the system call of a CPU. Reads of one file wait for each other in
    /// Linux; here the second one is refused (`EBUSY`).
    pub(crate) fn begin_iter_read(
        &mut self,
        cpu: Cpu,
        id: CtxId,
        file: IterFd,
        len: u64,
    ) -> Result<(), Failure> {
        // Other reads of the file, whoever writes to what it goes over.
        self.st.touch(Touch::All);
        self.maybe_grace_period();
        let task = self.current_task(cpu);
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let f = self.iter(file);
        if !f.open || f.busy {
            let errno = if f.open { Errno::EBUSY } else { Errno::EBADF };
            return self.iter_over(cpu, SysResult::Failed(errno));
        }
        if !f.text.is_empty() {
            let n = f.text.len().min(len);
            let text = f.text.drain(..n).collect();
            return self.iter_over(cpu, SysResult::Value(text));
        }
        // Of cgroups everything is read at once, or not.
        let again = f.over.target == Target::Cgroup && f.from != Cursor::START;
        if again && !f.done {
            return self.iter_over(cpu, SysResult::Failed(Errno::EOPNOTSUPP));
        }
        f.busy = true;
        let mut reading = Box::new(Reading {
            id,
            task,
            file,
            len,
            made: 0,
            objects: 0,
            before: 0,
            next: None,
            kept: Vec::new(),
            ends: again,
            ctx: 0,
        });
        match self.iter_next(&mut reading) {
            Some(found) => self.iter_show(cpu, reading, found),
            None => self.iter_stop(cpu, reading),
        }
    }

    /// The object that is to be shown.
    fn iter_next(&mut self, reading: &mut Reading) -> Option<Found> {
        self.st.touch(Touch::All);
        let f = self.iter(reading.file);
        let (over, from) = (f.over, f.from);
        if reading.ends {
            return None;
        }
        self.iter_find(&over, from)
    }

    /// `seq->op->show`
    fn iter_show(
        &mut self,
        cpu: Cpu,
        mut reading: Box<Reading>,
        found: Found,
    ) -> Result<(), Failure> {
        reading.before = self.iter(reading.file).text.len();
        reading.next = Some(found.next);
        reading.kept = found.made;
        if found.hidden {
            return self.iter_shown(cpu, reading, 0, false);
        }
        self.iter_run(cpu, reading, found.words)
    }

    /// `seq->op->stop` without an object: the program is told that there are no more, once.
    fn iter_stop(&mut self, cpu: Cpu, mut reading: Box<Reading>) -> Result<(), Failure> {
        let f = self.iter(reading.file);
        reading.before = f.text.len();
        reading.next = None;
        if f.done {
            return self.iter_give(cpu, &reading);
        }
        let over = f.over;
        let words = self.iter_last(&over);
        self.iter_run(cpu, reading, words)
    }

    /// `bpf_iter_run_prog`
    fn iter_run(
        &mut self,
        cpu: Cpu,
        mut reading: Box<Reading>,
        words: Vec<u64>,
    ) -> Result<(), Failure> {
        let f = self.iter(reading.file);
        let (prog, meta, seq_num, cookie) = (f.prog, f.meta, f.seq_num, f.cookie);
        let seq = std::mem::take(&mut f.text);
        self.mem.write_u64(meta + SEQ_NUM, seq_num);
        let args = std::iter::once(meta).chain(words).map(Arg::Value);
        let made = self.args_ctx(&args.collect::<Vec<_>>());
        let (r1, ctx) = made.map_err(|e| self.out_of_memory(e))?;
        reading.made += 1;
        reading.ctx = r1;
        let stack = self.take_stack()?;
        let cur = Cur {
            id: reading.id.child(reading.made),
            cpu,
            level: Level::Task,
            prog,
            ctx,
            seq: seq.into(),
            hook: Some(Box::new(AtHook {
                cookie,
                ..AtHook::default()
            })),
            lane: self.lane(cpu, Some(reading.task)),
            scratch: self.stacks[stack as usize] + STACK_SIZE,
            ..Cur::user(reading.task)
        };
        let name = self.st.progs[prog.at()].name.clone();
        self.event(&cur, What::ProgramStart { name });
        let regs = [r1, 0, 0, 0, 0];
        self.push(cpu, cur, 0, regs, stack, Running::Iter(reading));
        Ok(())
    }

    /// The program returned.
    pub(crate) fn iter_ended(&mut self, cpu: Cpu, run: &mut Run, r0: u32) -> Result<(), Failure> {
        let Running::Iter(reading) = std::mem::replace(&mut run.what, Running::Syscall) else {
            return Ok(());
        };
        self.drop_kept(run);
        let ctx = std::mem::replace(&mut run.cur.ctx, ProgCtx::Memory);
        let prog_type = self.st.progs[run.cur.prog.at()].prog_type;
        self.give_ctx_back(prog_type, 0, reading.ctx, ctx);
        let over = run.cur.hook.take().is_some_and(|h| h.seq_overflowed);
        self.iter(reading.file).text = std::mem::take(&mut *run.cur.seq);
        self.iter_shown(cpu, reading, r0, over)
    }

    /// What `bpf_seq_read` does after `show` or `stop`.
    fn iter_shown(
        &mut self,
        cpu: Cpu,
        mut reading: Box<Reading>,
        r0: u32,
        overflowed: bool,
    ) -> Result<(), Failure> {
        for at in std::mem::take(&mut reading.kept) {
            self.st.obj_drop(&mut self.mem, at);
        }
        let before = reading.before;
        let f = self.iter(reading.file);
        let Some(next) = reading.next else {
            // `stop`: what it returns does not count.
            f.done = !overflowed;
            return match overflowed {
                true if before == 0 => self.iter_fail(cpu, &reading, Errno::E2BIG),
                true => {
                    self.iter(reading.file).text.truncate(before);
                    self.iter_give(cpu, &reading)
                }
                false => self.iter_give(cpu, &reading),
            };
        };
        // Of cgroups it ends the iteration, of all others the object comes again.
        let cgroups = f.over.target == Target::Cgroup;
        reading.ends |= cgroups && r0 != 0;
        let again = r0 != 0 && !cgroups;
        if again || overflowed {
            f.text.truncate(before);
            let errno = if again { Errno::EAGAIN } else { Errno::E2BIG };
            return match before {
                0 => self.iter_fail(cpu, &reading, errno),
                _ => self.iter_give(cpu, &reading),
            };
        }
        f.from = next;
        reading.objects += 1;
        let Some(found) = self.iter_next(&mut reading) else {
            return self.iter_stop(cpu, reading);
        };
        let f = self.iter(reading.file);
        f.seq_num += 1;
        let written = f.text.len();
        if written >= reading.len || reading.objects >= MAX_OBJECTS {
            for at in found.made {
                self.st.obj_drop(&mut self.mem, at);
            }
            return match written {
                0 => self.iter_fail(cpu, &reading, Errno::EAGAIN),
                _ => self.iter_give(cpu, &reading),
            };
        }
        self.iter_show(cpu, reading, found)
    }

    /// The read is over, with an errno.
    fn iter_fail(&mut self, cpu: Cpu, reading: &Reading, errno: Errno) -> Result<(), Failure> {
        let f = self.iter(reading.file);
        f.busy = false;
        f.text.clear();
        self.iter_over(cpu, SysResult::Failed(errno))
    }

    /// The read is over, with what there is.
    fn iter_give(&mut self, cpu: Cpu, reading: &Reading) -> Result<(), Failure> {
        let f = self.iter(reading.file);
        f.busy = false;
        let n = f.text.len().min(reading.len);
        let text = f.text.drain(..n).collect();
        self.iter_over(cpu, SysResult::Value(text))
    }

    fn iter_over(&mut self, cpu: Cpu, result: SysResult) -> Result<(), Failure> {
        self.st.touch(Touch::All);
        if let Some(s) = &mut self.cpus[cpu.at()].thread.syscall {
            (s.out, s.phase) = (Some(Shared::new(result)), Phase::Return);
        }
        Ok(())
    }

    /// What an attached iterator goes over.
    pub(crate) fn check_iter(
        &self,
        prog: ProgId,
        name: &str,
        info: &IterInfo,
    ) -> Result<(), AttachError> {
        // Of others a test makes up the objects itself.
        let Some(target) = Target::of(name) else {
            return Ok(());
        };
        let checked = target.check(self, &self.st.progs[prog.at()], info);
        checked.map_err(|(errno, why)| AttachError::Refused {
            what: Hook::Iter(name.to_string()).to_string(),
            errno,
            why,
        })
    }
}
