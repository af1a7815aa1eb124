//! User space as tasks: code that makes system calls side by side with everything else.

use crate::{Map, Program, Result, Sim};
use bpfsim_abi::Errno;
use bpfsim_kernel::{Job, MapFd, ProgramInput, ProgramOutput, SysOp, SysResult, TaskId};
use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// What a system call answers, or its errno.
pub type Answer<T> = std::result::Result<T, Errno>;

type Code = Pin<Box<dyn Future<Output = Result<()>>>>;

/// The user code of a simulation's tasks.
#[derive(Default)]
pub(crate) struct Users {
    code: HashMap<TaskId, (Code, Rc<RefCell<Mail>>)>,
}

/// What passes between a task's code and the kernel.
#[derive(Default)]
struct Mail {
    /// The call that the code wants to make.
    call: Option<SysOp>,
    /// The call that it made.
    job: Option<Job>,
    /// What that returned.
    result: Option<SysResult>,
}

/// A task, to its own code: each awaited method is a system call, at which anything else can
/// come first, and which blocks where Linux's would.
pub struct User {
    sim: Sim,
    task: TaskId,
    mail: Rc<RefCell<Mail>>,
}

impl Users {
    /// Forgets all code, which may still use the simulation as it goes.
    pub(crate) fn clear(sim: &Sim) {
        if !sim.users().code.is_empty() {
            let code = std::mem::take(&mut sim.users().code);
            drop(code);
        }
    }

    /// Lets a task's code run up to its next system call, which is then made. Gives what the
    /// code returned, once it does.
    pub(crate) fn turn(sim: &Sim, task: TaskId) -> Option<Result<()>> {
        let (mut code, mail) = sim.users().code.remove(&task)?;
        {
            let mut mail = mail.borrow_mut();
            if let Some(job) = mail.job.take() {
                mail.result = sim.kernel_mut().take_result(job);
            }
        }
        let mut cx = Context::from_waker(Waker::noop());
        if let Poll::Ready(result) = code.as_mut().poll(&mut cx) {
            // ESRCH: it was killed meanwhile.
            let _ = sim.kernel_mut().task_exit(task);
            return Some(result);
        }
        let call = mail.borrow_mut().call.take();
        let Some(op) = call else {
            let what = "user code that awaits something else than a system call";
            return Some(Err(crate::Error::Unsupported { what }));
        };
        let job = sim.kernel_mut().user_syscall(task, op);
        mail.borrow_mut().job = Some(job);
        sim.users().code.insert(task, (code, mail));
        None
    }

    pub(crate) fn spawn<F>(sim: &Sim, task: TaskId, code: F)
    where
        F: AsyncFnOnce(User) -> Result<()> + 'static,
    {
        let mail = Rc::default();
        let user = User {
            sim: sim.clone(),
            task,
            mail: Rc::clone(&mail),
        };
        let code: Code = Box::pin(async move { code(user).await });
        sim.users().code.insert(task, (code, mail));
    }
}

impl User {
    /// Makes a system call.
    pub async fn call(&self, op: SysOp) -> SysResult {
        let mut op = Some(op);
        poll_fn(|_| {
            let mut mail = self.mail.borrow_mut();
            if let Some(op) = op.take() {
                mail.call = Some(op);
                return Poll::Pending;
            }
            mail.result.take().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// The task.
    pub fn task(&self) -> crate::Task {
        crate::Task(self.task)
    }

    /// Virtual time since boot, as the clock of the task's CPU has it, and programs there find it:
    /// what other CPUs do meanwhile makes no difference to it.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.sim.kernel().now_of(self.task))
    }

    /// `BPF_PROG_TEST_RUN`
    pub async fn test_run(
        &self,
        program: Program<'_>,
        input: ProgramInput,
    ) -> Answer<ProgramOutput> {
        let prog = program.id;
        match self.call(SysOp::TestRun { prog, input }).await {
            SysResult::Output(out) => Ok(out),
            SysResult::Failed(errno) => Err(errno),
            _ => Err(Errno::EINVAL),
        }
    }

    /// `BPF_MAP_UPDATE_ELEM`
    pub async fn update(&self, map: &Map, key: &[u8], value: &[u8], flags: u64) -> Answer<()> {
        let op = SysOp::MapUpdate {
            map: map.id(),
            key: key.to_vec(),
            value: value.to_vec(),
            flags,
        };
        self.call(op).await.done()
    }

    /// `BPF_MAP_DELETE_ELEM`
    pub async fn delete(&self, map: &Map, key: &[u8]) -> Answer<()> {
        let (map, key) = (map.id(), key.to_vec());
        self.call(SysOp::MapDelete { map, key }).await.done()
    }

    /// `BPF_MAP_LOOKUP_ELEM`
    pub async fn lookup(&self, map: &Map, key: &[u8]) -> Answer<Vec<u8>> {
        let (map, key) = (map.id(), key.to_vec());
        value(self.call(SysOp::MapLookup { map, key }).await)
    }

    /// `BPF_MAP_LOOKUP_AND_DELETE_ELEM`
    pub async fn lookup_and_delete(&self, map: &Map, key: &[u8]) -> Answer<Vec<u8>> {
        let (map, key) = (map.id(), key.to_vec());
        value(self.call(SysOp::MapLookupDelete { map, key }).await)
    }

    /// `close(2)` of the descriptor that loading the map's object opened.
    pub async fn close(&self, map: &Map) -> Answer<()> {
        self.close_fd(map.fd()).await
    }

    /// `close(2)` of a program's descriptor.
    pub async fn close_program(&self, program: Program<'_>) -> Answer<()> {
        self.call(SysOp::ProgClose(program.id)).await.done()
    }

    /// `close(2)` of a map's descriptor.
    pub async fn close_fd(&self, fd: MapFd) -> Answer<()> {
        self.call(SysOp::MapClose(fd)).await.done()
    }

    /// `clock_nanosleep(2)`
    pub async fn sleep(&self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.call(SysOp::Sleep(ns)).await;
    }

    /// `pause(2)`: until the task is killed.
    pub async fn pause(&self) {
        self.call(SysOp::Pause).await;
    }
}

fn value(result: SysResult) -> Answer<Vec<u8>> {
    match result {
        SysResult::Value(value) => Ok(value),
        SysResult::Failed(errno) => Err(errno),
        _ => Err(Errno::EINVAL),
    }
}
