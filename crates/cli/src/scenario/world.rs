//! What a scenario makes around its programs: tasks, cgroups, devices, calls that fail.

use super::{Problem, failed, wrong};
use bpfsim::{
    Cgroup, Cpu, Errno, Error, File, Job, Link, Namespace, Netdev, NsKind, Scheduler, Sim,
    StructOps, Task,
};
use serde::Deserialize;
use std::collections::BTreeMap;
use toml::Spanned;

/// What steps have made so far, by name.
#[derive(Default)]
pub struct Scene {
    /// Programs that were spawned.
    pub jobs: Vec<(String, Job)>,
    /// Hooks that happen side by side.
    pub fired: BTreeMap<String, Job>,
    pub links: BTreeMap<String, Vec<Attached>>,
    /// The scheduler that was enabled last, and that some step says how it ends.
    pub scheduler: Option<Scheduler>,
    pub exit_expected: bool,
    /// Some program ran.
    pub ran: bool,
    tasks: BTreeMap<String, Task>,
    netdevs: BTreeMap<String, Netdev>,
    cgroups: BTreeMap<String, Cgroup>,
    namespaces: BTreeMap<String, Namespace>,
    files: BTreeMap<String, File>,
}

/// Something that is attached.
pub enum Attached {
    Link(Link),
    Struct(StructOps),
}

impl Attached {
    pub fn detach(&self) -> Result<(), Error> {
        match self {
            Attached::Link(link) => link.detach().map_err(|errno| Error::World {
                what: "link",
                name: "detach".to_string(),
                errno,
            }),
            Attached::Struct(ops) => ops.detach(),
        }
    }
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewTask {
    name: Spanned<String>,
    kind: Option<Kind>,
    cpu: Option<u32>,
    pid: Option<u32>,
    tgid: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    parent: Option<Spanned<String>>,
    cgroup: Option<Spanned<String>>,
    #[serde(default)]
    namespaces: Vec<Spanned<String>>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewNamespace {
    name: Spanned<String>,
    kind: Spanned<String>,
    /// The one that it is below.
    below: Option<Spanned<String>>,
}

/// A task goes into a namespace.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enter {
    task: Option<Spanned<String>>,
    namespace: Spanned<String>,
}

/// A task opens a file.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Open {
    task: Option<Spanned<String>>,
    path: Spanned<String>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum Kind {
    User,
    Sleeping,
    Stopped,
    Kthread,
}

/// What happens to a task.
#[derive(Deserialize, Clone, Copy, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    Exit,
    Reap,
    Stop,
    Resume,
    Sleep,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Happens {
    task: Spanned<String>,
    to: Fate,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Move {
    task: Option<Spanned<String>>,
    cgroup: Spanned<String>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewNetdev {
    name: Spanned<String>,
    mac: Option<Spanned<String>>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fails {
    call: Spanned<String>,
    nth: Option<u64>,
    errno: Spanned<String>,
}

/// There is nothing of that name.
fn missing<T>(
    what: &str,
    name: &Spanned<String>,
    known: impl Iterator<Item = String>,
) -> Result<T, Problem> {
    let near = super::text::nearest(name.get_ref(), known);
    let near = near.map_or(String::new(), |n| format!("; did you mean `{n}`?"));
    wrong(name.span(), format!("no {what} `{}`{near}", name.get_ref()))
}

impl Scene {
    /// The task of a name; `test` is the test's own.
    /// The name of a task of the scenario.
    pub fn name_of(&self, task: Task) -> Option<String> {
        let mut tasks = self.tasks.iter();
        tasks
            .find(|(_, t)| **t == task)
            .map(|(name, _)| name.clone())
    }

    pub fn task(&self, sim: &Sim, name: &Spanned<String>) -> Result<Task, Problem> {
        match (name.get_ref().as_str(), self.tasks.get(name.get_ref())) {
            (_, Some(task)) => Ok(*task),
            ("test", None) => Ok(sim.main_task()),
            _ => {
                let known = self.tasks.keys().cloned();
                missing("task", name, known.chain(["test".to_string()]))
            }
        }
    }

    pub fn netdev(&self, name: &Spanned<String>) -> Result<Netdev, Problem> {
        match self.netdevs.get(name.get_ref()) {
            Some(dev) => Ok(*dev),
            None => missing("device", name, self.netdevs.keys().cloned()),
        }
    }

    /// The name of a device's index.
    pub fn netdev_name(&self, ifindex: u32) -> String {
        let found = self.netdevs.iter().find(|(_, d)| d.ifindex() == ifindex);
        found.map_or_else(|| ifindex.to_string(), |(name, _)| name.clone())
    }

    /// The cgroup of a path below the root, which is the empty one or `/`.
    pub fn cgroup(&self, sim: &Sim, path: &Spanned<String>) -> Result<Cgroup, Problem> {
        match trimmed(path.get_ref()) {
            "" => Ok(sim.root_cgroup()),
            known => match self.cgroups.get(known) {
                Some(cgroup) => Ok(*cgroup),
                None => missing("cgroup", path, self.cgroups.keys().cloned()),
            },
        }
    }

    /// Makes a cgroup, and those above it that there are not.
    pub fn make_cgroup(&mut self, sim: &Sim, path: &Spanned<String>) -> Result<(), Problem> {
        let mut at = sim.root_cgroup();
        let mut so_far = String::new();
        for name in trimmed(path.get_ref()).split('/') {
            if !so_far.is_empty() {
                so_far.push('/');
            }
            so_far.push_str(name);
            at = match self.cgroups.get(&so_far) {
                Some(known) => *known,
                None => sim.cgroup(at, name).map_err(failed(path.span()))?,
            };
            self.cgroups.insert(so_far.clone(), at);
        }
        Ok(())
    }

    pub fn remove_cgroup(&mut self, sim: &Sim, path: &Spanned<String>) -> Result<(), Problem> {
        let done = self.cgroup(sim, path)?.remove(sim);
        done.map_err(|errno| refused("cgroup", path, errno))?;
        self.cgroups.remove(trimmed(path.get_ref()));
        Ok(())
    }

    pub fn make_task(&mut self, sim: &Sim, new: &NewTask) -> Result<(), Problem> {
        let mut task = sim.task(new.name.get_ref());
        task = new.cpu.map(Cpu).into_iter().fold(task, |t, cpu| t.on(cpu));
        for (value, set) in [
            (new.pid, bpfsim::TaskBuilder::pid as fn(_, u32) -> _),
            (new.tgid, bpfsim::TaskBuilder::tgid),
            (new.uid, bpfsim::TaskBuilder::uid),
            (new.gid, bpfsim::TaskBuilder::gid),
        ] {
            task = value.into_iter().fold(task, set);
        }
        if let Some(parent) = &new.parent {
            task = task.parent(self.task(sim, parent)?);
        }
        if let Some(path) = &new.cgroup {
            task = task.cgroup(self.cgroup(sim, path)?);
        }
        for name in &new.namespaces {
            task = task.namespace(self.namespace(name)?);
        }
        let made = match new.kind.unwrap_or(Kind::User) {
            Kind::User => task.user(),
            Kind::Sleeping => task.sleeping(),
            Kind::Stopped => task.stopped(),
            Kind::Kthread => task.kthread(),
        };
        let made = made.map_err(failed(new.name.span()))?;
        self.tasks.insert(new.name.get_ref().clone(), made);
        Ok(())
    }

    fn namespace(&self, name: &Spanned<String>) -> Result<Namespace, Problem> {
        match self.namespaces.get(name.get_ref()) {
            Some(namespace) => Ok(*namespace),
            None => missing("namespace", name, self.namespaces.keys().cloned()),
        }
    }

    pub fn make_namespace(&mut self, sim: &Sim, new: &NewNamespace) -> Result<(), Problem> {
        let Some(kind) = NsKind::from_name(new.kind.get_ref()) else {
            let kinds = NsKind::ALL.map(|k| k.name().to_string());
            return missing("kind of namespaces", &new.kind, kinds.into_iter());
        };
        let made = match &new.below {
            Some(above) => self.namespace(above)?.below(sim),
            None => sim.namespace(kind),
        };
        let made = made.map_err(failed(new.name.span()))?;
        if made.kind(sim) != kind {
            return wrong(new.kind.span(), "what it is below is of another kind");
        }
        self.namespaces.insert(new.name.get_ref().clone(), made);
        Ok(())
    }

    pub fn enter(&self, sim: &Sim, to: &Enter) -> Result<(), Problem> {
        let task = self.task_or_own(sim, to.task.as_ref())?;
        let done = task.enter(sim, self.namespace(&to.namespace)?);
        done.map_err(|errno| refused("namespace", &to.namespace, errno))
    }

    pub fn open(&mut self, sim: &Sim, what: &Open) -> Result<(), Problem> {
        let task = self.task_or_own(sim, what.task.as_ref())?;
        let path = what.path.get_ref();
        let file = match self.files.get(path) {
            Some(file) => *file,
            None => sim.file(path).map_err(failed(what.path.span()))?,
        };
        self.files.insert(path.clone(), file);
        let done = task.open(sim, file);
        done.map(drop)
            .map_err(|errno| refused("file", &what.path, errno))
    }

    /// A task by its name, or without one the test's own.
    pub fn task_or_own(&self, sim: &Sim, name: Option<&Spanned<String>>) -> Result<Task, Problem> {
        name.map_or_else(|| Ok(sim.main_task()), |name| self.task(sim, name))
    }

    pub fn happens(&self, sim: &Sim, what: &Happens) -> Result<(), Problem> {
        let task = self.task(sim, &what.task)?;
        let done = match what.to {
            Fate::Exit => task.exit(sim),
            Fate::Reap => task.reap(sim),
            Fate::Stop => task.stop(sim),
            Fate::Resume => task.resume(sim),
            Fate::Sleep => task.sleep(sim),
        };
        done.map_err(|errno| refused("task", &what.task, errno))
    }

    pub fn move_task(&self, sim: &Sim, to: &Move) -> Result<(), Problem> {
        let task = self.task_or_own(sim, to.task.as_ref())?;
        let done = task.move_to(sim, self.cgroup(sim, &to.cgroup)?);
        done.map_err(|errno| refused("cgroup", &to.cgroup, errno))
    }

    pub fn make_netdev(&mut self, sim: &Sim, new: &NewNetdev) -> Result<(), Problem> {
        let mac = match &new.mac {
            Some(text) => mac(text)?,
            None => [2, 0, 0, 0, 0, 1 + self.netdevs.len() as u8],
        };
        let made = sim.netdev(new.name.get_ref(), mac);
        let made = made.map_err(failed(new.name.span()))?;
        self.netdevs.insert(new.name.get_ref().clone(), made);
        Ok(())
    }
}

/// A call is to fail.
pub fn fail(sim: &Sim, fails: &Fails) -> Result<(), Problem> {
    let name = fails.errno.get_ref();
    let Some(errno) = Errno::from_name(name) else {
        return wrong(
            fails.errno.span(),
            format!("`{name}` is no errno, such as ENOMEM"),
        );
    };
    let done = sim.fail(fails.call.get_ref(), fails.nth.unwrap_or(1), errno);
    done.map_err(failed(fails.call.span()))
}

fn refused(what: &'static str, name: &Spanned<String>, errno: Errno) -> Problem {
    failed(name.span())(Error::World {
        what,
        name: name.get_ref().clone(),
        errno,
    })
}

fn trimmed(path: &str) -> &str {
    path.trim_matches('/')
}

/// `02:00:00:00:00:01`
fn mac(text: &Spanned<String>) -> Result<[u8; 6], Problem> {
    let parts = text.get_ref().split(':');
    let bytes: Result<Vec<u8>, _> = parts.map(|p| u8::from_str_radix(p, 16)).collect();
    match bytes.ok().and_then(|b| b.try_into().ok()) {
        Some(mac) => Ok(mac),
        None => wrong(
            text.span(),
            "a hardware address is six bytes, such as 02:00:00:00:00:01",
        ),
    }
}
