//! Steps that attach programs, and hooks that happen.

use super::text::unhex;
use super::world::{Attached, Scene};
use super::{Problem, failed, wrong};
use bpfsim::{
    Arg, AttachOpts, AttachType, CgroupOrder, Ebpf, Hook, IterInfo, Level, ProgramInput, Sim,
    attach_flags,
};
use serde::Deserialize;
use toml::{Spanned, Value};

/// A hook, as a table of one key.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookKey {
    Function(Spanned<String>),
    UserFunction(Spanned<String>),
    Usdt(Spanned<String>),
    Tracepoint(Spanned<String>),
    RawTracepoint(Spanned<String>),
    Lsm(Spanned<String>),
    PerfEvent(u32),
    Xdp(Spanned<String>),
    Ingress(Spanned<String>),
    Egress(Spanned<String>),
    Cgroup(AtCgroup),
    Netfilter(AtNetfilter),
    Netns(Netns),
    SockMap(AtSockMap),
    Iter(Spanned<String>),
    StructOps(Member),
}

/// Of the network namespace.
#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
pub enum Netns {
    FlowDissector,
    SkLookup,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AtCgroup {
    path: Spanned<String>,
    what: Spanned<String>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AtNetfilter {
    family: Family,
    hook: Chain,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum Family {
    Ipv4 = 2,
    Ipv6 = 10,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum Chain {
    PreRouting,
    LocalIn,
    Forward,
    LocalOut,
    PostRouting,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AtSockMap {
    map: Spanned<String>,
    what: Spanned<String>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    map: Spanned<String>,
    member: Spanned<String>,
}

/// How to attach.
#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct With {
    /// The cgroup of an `lsm_cgroup` program.
    cgroup: Option<Spanned<String>>,
    #[serde(default)]
    flags: Vec<Flag>,
    /// The program that `before` and `after` are about.
    beside: Option<Spanned<String>>,
    cookie: Option<u64>,
    /// Several functions, as `function` or `user_function` name them, and a cookie for each.
    #[serde(default)]
    functions: Vec<Spanned<String>>,
    #[serde(default)]
    cookies: Vec<u64>,
    priority: Option<i32>,
    /// A filter of tc.
    #[serde(default)]
    filter: bool,
    /// When a function returns.
    returns: Option<bool>,
    /// The program whose place it takes.
    replace: Option<Spanned<String>>,
    /// How often the hook of a cgroup was changed so far.
    revision: Option<u64>,
    /// Of an iterator: the map whose elements, the order over cgroups, the thread or process.
    over: Option<Spanned<String>>,
    order: Option<Spanned<String>>,
    tid: Option<u32>,
    pid: Option<u32>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum Flag {
    Override,
    Multi,
    Before,
    After,
    Preorder,
    /// By `BPF_PROG_ATTACH`.
    Legacy,
}

/// Where a hook happens.
#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
pub enum LevelKey {
    Task,
    Softirq,
    Hardirq,
    Nmi,
}

impl From<LevelKey> for Level {
    fn from(key: LevelKey) -> Level {
        match key {
            LevelKey::Task => Level::Task,
            LevelKey::Softirq => Level::Softirq,
            LevelKey::Hardirq => Level::Hardirq,
            LevelKey::Nmi => Level::Nmi,
        }
    }
}

fn attach_type(name: &Spanned<String>) -> Result<AttachType, Problem> {
    match AttachType::from_name(name.get_ref()) {
        Some(known) => Ok(known),
        None => {
            let known = AttachType::ALL.iter().map(|a| a.name().to_string());
            let near = super::text::nearest(name.get_ref(), known);
            let near = near.map_or(String::new(), |n| format!("; did you mean `{n}`?"));
            wrong(
                name.span(),
                format!("no attach type `{}`{near}", name.get_ref()),
            )
        }
    }
}

/// Parts of a name between separators.
fn parts<const N: usize>(
    text: &Spanned<String>,
    sep: char,
    like: &str,
) -> Result<[String; N], Problem> {
    let parts: Vec<String> = text.get_ref().splitn(N, sep).map(str::to_string).collect();
    parts.try_into().or_else(|_| {
        wrong(
            text.span(),
            format!("`{}` is not like {like}", text.get_ref()),
        )
    })
}

impl HookKey {
    pub fn hook(&self, sim: &Sim, bpf: &Ebpf, scene: &Scene) -> Result<Hook, Problem> {
        Ok(match self {
            HookKey::Function(name) => Hook::function(name.get_ref()),
            HookKey::UserFunction(name) => {
                let [binary, name] = parts(name, ':', "BINARY:FUNCTION")?;
                Hook::user_function(&binary, &name)
            }
            HookKey::Usdt(name) => {
                let [binary, provider, name] = parts(name, ':', "BINARY:PROVIDER:NAME")?;
                Hook::Usdt {
                    binary,
                    provider,
                    name,
                }
            }
            HookKey::Tracepoint(name) => {
                let [category, name] = parts(name, '/', "CATEGORY/NAME")?;
                Hook::tracepoint(&category, &name)
            }
            HookKey::RawTracepoint(name) => Hook::raw_tracepoint(name.get_ref()),
            HookKey::Lsm(name) => Hook::lsm(name.get_ref()),
            HookKey::PerfEvent(number) => Hook::PerfEvent(*number),
            HookKey::Xdp(dev) => scene.netdev(dev)?.xdp(),
            HookKey::Ingress(dev) => scene.netdev(dev)?.ingress(),
            HookKey::Egress(dev) => scene.netdev(dev)?.egress(),
            HookKey::Cgroup(at) => {
                let what = attach_type(&at.what)?;
                scene.cgroup(sim, &at.path)?.hook(what)
            }
            HookKey::Netfilter(at) => Hook::Netfilter {
                family: at.family as u8,
                hook: at.hook as u8,
            },
            HookKey::Netns(Netns::FlowDissector) => Hook::FlowDissector,
            HookKey::Netns(Netns::SkLookup) => Hook::SkLookup,
            HookKey::SockMap(at) => Hook::SockMap {
                map: bpf
                    .map(at.map.get_ref())
                    .map_err(failed(at.map.span()))?
                    .id(),
                what: attach_type(&at.what)?,
            },
            HookKey::Iter(target) => Hook::Iter(target.get_ref().clone()),
            HookKey::StructOps(of) => Hook::StructOps {
                map: bpf
                    .map(of.map.get_ref())
                    .map_err(failed(of.map.span()))?
                    .id(),
                member: of.member.get_ref().clone(),
            },
        })
    }

    /// True when what happens there is a packet.
    pub fn takes_packet(&self) -> bool {
        match self {
            HookKey::Xdp(_)
            | HookKey::Ingress(_)
            | HookKey::Egress(_)
            | HookKey::Netfilter(_)
            | HookKey::Netns(Netns::FlowDissector) => true,
            HookKey::Cgroup(at) => at.what.get_ref().contains("gress"),
            _ => false,
        }
    }
}

/// Attaches a program, or a struct_ops map, under its name.
pub fn attach(
    name: &Spanned<String>,
    to: Option<&HookKey>,
    with: Option<&With>,
    sim: &Sim,
    bpf: &mut Ebpf,
    scene: &mut Scene,
) -> Result<(), Problem> {
    let struct_ops = bpf.map(name.get_ref()).is_ok() && bpf.program(name.get_ref()).is_err();
    let made = if struct_ops {
        let map = bpf.map(name.get_ref()).map_err(failed(name.span()))?;
        Attached::Struct(map.attach_struct_ops().map_err(failed(name.span()))?)
    } else {
        let to = to.map(|to| to.hook(sim, bpf, scene)).transpose()?;
        let mut hooks: Vec<Hook> = to.into_iter().collect();
        let opts = match with {
            Some(with) => with.resolved(sim, bpf, scene, &mut hooks)?,
            None => AttachOpts::default(),
        };
        let mut program = bpf
            .program_mut(name.get_ref())
            .map_err(failed(name.span()))?;
        let link = program.attach_with(&hooks, &opts);
        Attached::Link(link.map_err(failed(name.span()))?)
    };
    let links = scene.links.entry(name.get_ref().clone()).or_default();
    links.push(made);
    Ok(())
}

impl With {
    fn resolved(
        &self,
        sim: &Sim,
        bpf: &mut Ebpf,
        scene: &Scene,
        hooks: &mut Vec<Hook>,
    ) -> Result<AttachOpts, Problem> {
        if let (Some(path), None) = (&self.cgroup, &self.order) {
            hooks.push(scene.cgroup(sim, path)?.hook(AttachType::LsmCgroup));
        }
        for name in &self.functions {
            let key = match name.get_ref().contains(':') {
                true => HookKey::UserFunction(name.clone()),
                false => HookKey::Function(name.clone()),
            };
            hooks.push(key.hook(sim, bpf, scene)?);
        }
        let of_user = |hook: &Hook| matches!(hook, Hook::UserFunction { .. });
        let mut opts = AttachOpts {
            iter: self.iter(sim, bpf, scene)?,
            revision: self.revision.unwrap_or(0),
            cookie: self.cookie.unwrap_or(0),
            cookies: self.cookies.clone(),
            pid: self.pid.filter(|_| hooks.iter().any(of_user)).unwrap_or(0),
            priority: self.priority.unwrap_or(0),
            filter: self.filter,
            returns: self.returns,
            ..AttachOpts::default()
        };
        for flag in &self.flags {
            opts.flags |= match flag {
                Flag::Override => attach_flags::ALLOW_OVERRIDE,
                Flag::Multi => attach_flags::ALLOW_MULTI,
                Flag::Before => attach_flags::BEFORE,
                Flag::After => attach_flags::AFTER,
                Flag::Preorder => attach_flags::PREORDER,
                Flag::Legacy => {
                    opts.legacy = true;
                    0
                }
            };
        }
        if let Some(name) = &self.replace {
            let program = bpf
                .program_mut(name.get_ref())
                .map_err(failed(name.span()))?;
            opts.flags |= attach_flags::REPLACE;
            opts.replace = Some(program.prog_id());
        }
        if let Some(name) = &self.beside {
            let links = scene.links.get(name.get_ref());
            match links.and_then(|l| l.last()) {
                Some(Attached::Link(link)) => opts.relative = Some(link.relative()),
                _ => {
                    return wrong(name.span(), format!("`{}` is not attached", name.get_ref()));
                }
            }
        }
        Ok(opts)
    }
}

impl With {
    /// What an iterator goes over.
    fn iter(&self, sim: &Sim, bpf: &Ebpf, scene: &Scene) -> Result<IterInfo, Problem> {
        let mut iter = IterInfo {
            tid: self.tid.unwrap_or(0),
            pid: self.pid.unwrap_or(0),
            ..IterInfo::default()
        };
        if let Some(name) = &self.over {
            let map = bpf.map(name.get_ref()).map_err(failed(name.span()))?;
            iter.map = Some(map.id());
        }
        if let Some(order) = &self.order {
            iter.order = CgroupOrder::from_name(order.get_ref());
            if iter.order.is_none() {
                return wrong(
                    order.span(),
                    "an order is self_only, descendants_pre, descendants_post or ancestors_up",
                );
            }
            if let Some(path) = &self.cgroup {
                iter.cgroup = Some(scene.cgroup(sim, path)?.key());
            }
        }
        Ok(iter)
    }
}

/// The text of an iterator: the last that was attached under a name.
pub fn read(name: &Spanned<String>, sim: &Sim, scene: &Scene) -> Result<String, Problem> {
    match scene.links.get(name.get_ref()).and_then(|l| l.last()) {
        Some(Attached::Link(link)) => sim.read_iter(link).map_err(failed(name.span())),
        _ => wrong(name.span(), format!("`{}` is not attached", name.get_ref())),
    }
}

/// What is detached: the last that was attached under a name.
pub fn detach(name: &Spanned<String>, scene: &mut Scene) -> Result<(), Problem> {
    let links = scene.links.get_mut(name.get_ref());
    match links.and_then(Vec::pop) {
        Some(link) => link.detach().map_err(failed(name.span())),
        None => wrong(name.span(), format!("`{}` is not attached", name.get_ref())),
    }
}

/// Arguments of a function: numbers, texts and bytes (pointers to them), tasks and so on by name.
pub fn args(
    args: &[Spanned<Value>],
    sim: &Sim,
    bpf: &Ebpf,
    scene: &Scene,
) -> Result<Vec<Arg>, Problem> {
    let one = |arg: &Spanned<Value>| {
        let named = |value: &Value| match value {
            Value::String(name) => Ok(Spanned::new(arg.span(), name.clone())),
            _ => wrong(arg.span(), "a name"),
        };
        Ok(match arg.get_ref() {
            Value::Integer(n) => Arg::Value(*n as u64),
            Value::String(text) => Arg::Bytes([text.as_bytes(), b"\0"].concat()),
            Value::Table(t) if t.len() == 1 => match t.iter().next() {
                Some((k, v)) if k == "task" => scene.task(sim, &named(v)?)?.arg(),
                Some((k, v)) if k == "cgroup" => scene.cgroup(sim, &named(v)?)?.arg(),
                Some((k, v)) if k == "hex" => Arg::Bytes(unhex(&named(v)?)?),
                Some((k, v)) if k == "map" => {
                    let name = named(v)?;
                    let map = bpf.map(name.get_ref()).map_err(failed(arg.span()))?;
                    Arg::Map(map.id())
                }
                _ => {
                    return wrong(
                        arg.span(),
                        "an argument is a number, a text, or a table of task, cgroup, map or hex",
                    );
                }
            },
            _ => {
                return wrong(
                    arg.span(),
                    "an argument is a number, a text, or a table of task, cgroup, map or hex",
                );
            }
        })
    };
    args.iter().map(one).collect()
}

/// The input of a hook without data is 64 zero bytes, where it takes a packet.
pub fn packet(hook: &HookKey, input: ProgramInput) -> ProgramInput {
    let data = match hook.takes_packet() && input.data.is_empty() {
        true => vec![0; 64],
        false => input.data.clone(),
    };
    ProgramInput { data, ..input }
}
