//! What must hold of the tables by themselves, and of the pages that document their rows.
use bpfsim_abi::ctx::{self, CtxShape};
use bpfsim_abi::helper::{self, ArgBase, Caller, TypeFlags};
use bpfsim_abi::kfunc::{self, Filter, KfuncFlags};
use bpfsim_abi::map::{FIELD_KINDS, FIELDS_REFUSED, Fields, KPTR_TYPES, RULES};
use bpfsim_abi::{
    AttachType, Errno, Func, KernelVersion, MapType, ProgType, ProgTypes, prog, status,
};
use std::collections::BTreeSet;

#[test]
fn enumerations_are_dense_and_named_once() {
    macro_rules! check {
        ($($name:ident = $last:literal),*) => {$(
            let all = $name::ALL;
            assert_eq!(all.len(), $last + 1, "{}", stringify!($name));
            for (i, member) in all.iter().enumerate() {
                assert_eq!(member.number() as usize, i);
                assert_eq!($name::from_u32(i as u32), Some(*member));
                assert_eq!($name::from_name(member.name()), Some(*member));
                assert_eq!($name::from_name(member.symbol()), Some(*member));
                assert!(member.since() <= KernelVersion::REFERENCE);
            }
            assert_eq!($name::from_u32($last + 1), None);
        )*};
    }
    // The last numbers of 6.18's uapi/linux/bpf.h.
    check!(ProgType = 32, AttachType = 57, MapType = 33, Func = 211);
}

#[test]
fn errnos_go_to_r0_and_back() {
    let names: BTreeSet<_> = Errno::ALL.iter().filter_map(|e| e.name()).collect();
    assert_eq!(names.len(), Errno::ALL.len());
    for errno in Errno::ALL {
        assert_eq!(Errno::from_ret(errno.ret()), Some(*errno));
        assert_eq!(errno.name().and_then(Errno::from_name), Some(*errno));
    }
    assert_eq!((Errno::EINVAL.ret() as i64, Errno::ENOTSUPP.0), (-22, 524));
    assert_eq!((Errno::EDEADLK.0, Errno::EOPNOTSUPP.0), (35, 95));
    for not_one in [0, 1, u64::MAX - 4095, 0xffff_fff0] {
        assert_eq!(Errno::from_ret(not_one), None);
    }
}

#[test]
fn versions_are_read_and_ordered() {
    for (text, version) in [
        ("5.15", Some(KernelVersion::V5_15)),
        ("v6.18.3", Some(KernelVersion::V6_18)),
        ("6.1", Some(KernelVersion::V6_1)),
        ("6", None),
        ("6.", None),
        ("6.1.2.3", None),
        ("6.+1", None),
        ("6.99999", None),
        ("", None),
    ] {
        assert_eq!(text.parse().ok(), version, "{text}");
    }
    assert!(KernelVersion::V6_9 < KernelVersion::V6_10);
    assert!(KernelVersion::ALL.is_sorted());
    assert_eq!(KernelVersion::V6_18.code(), 0x06_12_00);
}

#[test]
fn every_helper_has_a_prototype_that_someone_gets() {
    let mut symbols = BTreeSet::new();
    for proto in helper::all_protos() {
        assert!(symbols.insert(proto.symbol), "{} twice", proto.symbol);
        assert!(proto.args.len() <= 5, "{}", proto.symbol);
        for (i, arg) in proto.args.iter().enumerate() {
            // check_args_pair_invalid: memory of no fixed size is followed by its size.
            let sized = i + 1 < proto.args.len()
                && matches!(
                    proto.args[i + 1].base,
                    ArgBase::ConstSize | ArgBase::ConstSizeOrZero
                );
            let mem = arg.base == ArgBase::Mem && !arg.flags.contains(TypeFlags::MEM_FIXED_SIZE);
            assert_eq!(mem, sized, "{} argument {}", proto.symbol, i + 1);
        }
    }
    for func in &Func::ALL[1..] {
        assert!(!helper::prog_types(*func).is_empty(), "{func}");
    }
    let given = |p: &helper::Proto| {
        ProgType::ALL.iter().any(|t| {
            AttachType::ALL.iter().any(|a| {
                [None, Some("tcp_congestion_ops"), Some("bpf_iter_tcp")]
                    .iter()
                    .any(|target| {
                        helper::func_proto_sets(*t, *a, *target)
                            .iter()
                            .any(|set| set.protos.iter().any(|(q, _)| q.symbol == p.symbol))
                    })
            })
        })
    };
    let idle: Vec<_> = helper::all_protos()
        .filter(|p| !given(p))
        .map(|p| p.symbol)
        .collect();
    assert_eq!(idle, Vec::<&str>::new());
}

#[test]
fn what_only_source_tells_of_helpers() {
    use AttachType as A;
    let has = |func, caller: Caller<'_>| helper::proto(func, &caller).map(|p| p.symbol);
    let fentry = Caller::new(ProgType::Tracing, A::TraceFentry).target("vfs_truncate");
    let lsm = |hook| Caller::new(ProgType::Lsm, A::LsmCgroup).target(hook);
    let iter = |target| Caller::new(ProgType::Tracing, A::TraceIter).target(target);
    let tcp_ca =
        Caller::new(ProgType::StructOps, A::CgroupInetIngress).target("tcp_congestion_ops");
    let no_perfmon = Caller {
        caps: helper::Caps::BPF,
        ..Caller::new(ProgType::Xdp, A::Xdp)
    };
    for (func, caller, proto) in [
        (Func::GetFuncRet, fentry, Some("bpf_get_func_ret_proto")),
        (Func::SeqPrintf, fentry, None),
        (
            Func::SeqPrintf,
            iter("bpf_iter_task"),
            Some("bpf_seq_printf_proto"),
        ),
        (Func::Setsockopt, iter("bpf_iter_task"), None),
        (
            Func::Setsockopt,
            iter("bpf_iter_tcp"),
            Some("bpf_sk_setsockopt_proto"),
        ),
        (
            Func::Setsockopt,
            lsm("bpf_lsm_sock_graft"),
            Some("bpf_sk_setsockopt_proto"),
        ),
        (
            Func::Setsockopt,
            lsm("bpf_lsm_socket_post_create"),
            Some("bpf_unlocked_sk_setsockopt_proto"),
        ),
        (Func::Setsockopt, lsm("bpf_lsm_file_open"), None),
        (Func::Setsockopt, tcp_ca, Some("bpf_sk_setsockopt_proto")),
        (
            Func::Setsockopt,
            Caller {
                member: Some("release"),
                ..tcp_ca
            },
            None,
        ),
        (Func::TracePrintk, no_perfmon, None),
        (Func::TimerInit, no_perfmon, Some("bpf_timer_init_proto")),
        (
            Func::GetStack,
            Caller {
                sleepable: true,
                ..Caller::new(ProgType::Kprobe, A::PerfEvent)
            },
            Some("bpf_get_stack_sleepable_proto"),
        ),
        (
            Func::GetAttachCookie,
            Caller::new(ProgType::Kprobe, A::TraceUprobeMulti),
            Some("bpf_get_attach_cookie_proto_umulti"),
        ),
        (
            Func::RcRepeat,
            Caller::new(ProgType::LircMode2, A::LircMode2),
            Some("rc_repeat_proto"),
        ),
        (
            Func::MapLookupElem,
            Caller::new(ProgType::Ext, A::CgroupInetIngress),
            None,
        ),
    ] {
        assert_eq!(has(func, caller), proto, "{func} {caller:?}");
    }
}

#[test]
fn kfuncs_are_named_once_and_agree_with_their_prototypes() {
    let mut names = BTreeSet::new();
    for k in kfunc::all() {
        assert!(names.insert(k.name), "{} twice", k.name);
        assert_eq!(kfunc::get(k.name), Some(k));
        assert!(!k.returns().is_empty(), "{}", k.proto);
        assert!(k.params().len() <= 5 || k.hooks.is_empty(), "{}", k.proto);
        assert!(
            k.params().iter().all(|p| p.contains(' ')),
            "{}: {:?}",
            k.name,
            k.params()
        );
        // What gives a reference gives a pointer; what releases one takes something.
        if k.is(KfuncFlags::ACQUIRE) {
            assert!(k.returns().ends_with('*'), "{}", k.proto);
        }
        if k.is(KfuncFlags::RELEASE) || k.is(KfuncFlags::ITER_DESTROY) {
            assert!(!k.params().is_empty(), "{}", k.proto);
        }
        // bpf_iter_T_new, _next, _destroy come together; next may give null.
        if let Some(stem) = k
            .name
            .strip_suffix("_new")
            .filter(|_| k.is(KfuncFlags::ITER_NEW))
        {
            let other = |suffix| kfunc::get(&format!("{stem}{suffix}"));
            let (next, destroy) = (other("_next"), other("_destroy"));
            assert!(next.is_some_and(|n| n.is(KfuncFlags::ITER_NEXT | KfuncFlags::RET_NULL)));
            assert!(
                destroy.is_some_and(|d| d.is(KfuncFlags::ITER_DESTROY)),
                "{stem}"
            );
        }
        assert!(k.until.is_none_or(|until| until > k.since), "{}", k.name);
    }
    let callback = kfunc::get("bpf_wq_set_callback_impl").map(kfunc::Kfunc::params);
    assert_eq!(
        callback.map(|p| p.len()),
        Some(4),
        "a function pointer is one parameter"
    );
}

#[test]
fn what_only_source_tells_of_kfuncs() {
    let may = |name: &str, prog, attach, target| {
        kfunc::get(name).is_some_and(|k| k.allowed(prog, attach, target))
    };
    use AttachType as A;
    use ProgType as P;
    assert!(may("bpf_get_task_exe_file", P::Lsm, A::LsmMac, None));
    assert!(!may(
        "bpf_get_task_exe_file",
        P::Tracing,
        A::TraceFentry,
        None
    ));
    assert!(may(
        "scx_bpf_kick_cpu",
        P::StructOps,
        A::StructOps,
        Some("sched_ext_ops")
    ));
    assert!(!may(
        "scx_bpf_kick_cpu",
        P::StructOps,
        A::StructOps,
        Some("tcp_congestion_ops")
    ));
    assert!(may(
        "bpf_kfree_skb",
        P::StructOps,
        A::StructOps,
        Some("Qdisc_ops")
    ));
    assert!(!may("bpf_fentry_test1", P::Tracing, A::ModifyReturn, None));
    let since = |name: &str, prog| kfunc::get(name).and_then(|k| k.since_for(prog));
    assert_eq!(
        since("bpf_task_acquire", P::Tracepoint),
        Some(KernelVersion::V6_12)
    );
    assert_eq!(
        since("bpf_wq_init", P::Tracepoint),
        Some(KernelVersion::V6_10)
    );
    assert_eq!(since("bpf_wq_init", P::SockOps), Some(KernelVersion::V6_10));
    assert_eq!(since("bpf_task_acquire", P::SocketFilter), None);
    assert_eq!(
        helper::since(Func::GetTaskStack, P::Xdp),
        KernelVersion::V6_16
    );
    assert_eq!(
        helper::since(Func::GetTaskStack, P::Kprobe),
        KernelVersion::V5_15
    );
    assert!(kfunc::get("cgroup_rstat_flush").is_some_and(|k| {
        k.exists_in(KernelVersion::V6_12) && !k.exists_in(KernelVersion::V6_18)
    }));
    assert!(kfunc::all().any(|k| k.filter == Filter::DeviceBound));
}

/// The documentation pages list program types; here is what 6.18 allows beyond them.
#[test]
fn pages_list_less_than_linux_allows() {
    for line in include_str!("data/pages.csv")
        .lines()
        .filter(|l| !l.starts_with('#'))
    {
        let [name, since, listed, beyond] = line.split(',').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let set = |list: &str| -> ProgTypes {
            list.split_terminator(' ')
                .map(|t| ProgType::from_name(t).unwrap_or_else(|| panic!("no type {t}")))
                .collect()
        };
        let (reach, first, field) = match Func::from_name(name) {
            Some(func) => (helper::prog_types(func), func.since(), Fields::TIMER),
            None => {
                let k = kfunc::get(name).unwrap_or_else(|| panic!("no {name}"));
                let reach = ProgType::ALL[1..]
                    .iter()
                    .copied()
                    .filter(|t| k.reaches(*t))
                    .collect();
                let wq = name.starts_with("bpf_wq");
                (
                    reach,
                    k.since,
                    if wq {
                        Fields::WORKQUEUE
                    } else {
                        Fields::TASK_WORK
                    },
                )
            }
        };
        assert_eq!(first.to_string(), since, "{name}");
        // A program that may not even refer to the map cannot use the field.
        let refused = |t: ProgType| {
            FIELDS_REFUSED
                .iter()
                .any(|(fields, progs, _)| fields.contains(field) && progs.contains(t))
        };
        let usable: ProgTypes = reach.iter().filter(|t| !refused(*t)).collect();
        assert_eq!(usable, set(listed).union(set(beyond)), "{name}");
        assert!(
            set(beyond).iter().all(|t| !set(listed).contains(t)),
            "{name}"
        );
    }
}

#[test]
fn layouts_and_rules_fit_together() {
    for layout in ctx::LAYOUTS {
        let mut end = 0;
        for field in layout.fields {
            assert!(
                field.offset >= end && field.end() <= layout.size,
                "{} {}",
                layout.name,
                field.name
            );
            assert_eq!(layout.field_at(field.offset.into()), Some(field));
            assert_eq!(layout.field_at(u32::from(field.end()) - 1), Some(field));
            assert_eq!(layout.field(field.slot), Some(field));
            end = field.end();
        }
        assert_eq!(layout.field_at(layout.size.into()), None);
        assert_eq!(layout.field_at(u32::MAX), None);
    }
    for rule in ctx::RULES {
        for field in rule.fields {
            assert!(
                rule.layout.field(field.slot).is_some(),
                "{} {:?}",
                rule.symbol,
                field.slot
            );
        }
    }
    for prog in &ProgType::ALL[1..] {
        for attach in AttachType::ALL {
            let fixed = prog::fixup_attach_type(*prog, *attach);
            let shape = ctx::shape(*prog, fixed);
            let loads = prog::takes_attach_type(*prog, fixed);
            let none = matches!(shape, CtxShape::None);
            assert!(!loads || !none || *prog == ProgType::Ext, "{prog} {attach}");
            for offset in [0, 7, 240, 65534, 65535, u32::MAX] {
                assert!(shape.check(offset, 3, false).is_none());
                assert!(shape.check(offset, 0, true).is_none());
            }
            assert!(shape.check(u32::MAX, 8, false).is_none());
        }
    }
}

#[test]
fn map_rules_are_one_per_type() {
    let with: Vec<MapType> = RULES.iter().map(|r| r.map_type).collect();
    let all = MapType::ALL.iter().copied();
    let without = |t: &MapType| !matches!(t, MapType::Unspec | MapType::StructOps);
    assert_eq!(with, all.filter(without).collect::<Vec<_>>());
    let kinds = FIELD_KINDS
        .iter()
        .fold(Fields::empty(), |all, k| all | k.field);
    assert_eq!(kinds, Fields::all(), "every kind of field is described");
}

#[test]
fn hook_lists_are_sorted() {
    for list in [
        prog::SLEEPABLE_LSM_HOOKS,
        prog::UNTRUSTED_LSM_HOOKS,
        prog::BOOL_LSM_HOOKS,
        prog::DISABLED_LSM_HOOKS,
    ] {
        assert!(list.is_sorted() && !list.is_empty());
    }
    assert!(prog::lsm_hook_in(
        prog::SLEEPABLE_LSM_HOOKS,
        "bpf_lsm_file_open"
    ));
    assert!(!prog::lsm_hook_in(prog::SLEEPABLE_LSM_HOOKS, "task_free"));
}

#[test]
fn status_rows_name_what_exists_once() {
    let kfuncs: BTreeSet<&str> = status::KFUNCS.iter().map(|(n, ..)| *n).collect();
    assert_eq!(kfuncs.len(), status::KFUNCS.len());
    let unknown: Vec<_> = kfuncs.iter().filter(|n| kfunc::get(n).is_none()).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    macro_rules! once {
        ($($rows:ident),*) => {$(
            let all: BTreeSet<_> = status::$rows.iter().map(|(which, ..)| *which).collect();
            assert_eq!(all.len(), status::$rows.len(), stringify!($rows));
        )*};
    }
    once!(HELPERS, MAP_TYPES, PROG_TYPES);
}

#[test]
fn arguments_of_tracing_programs() {
    use ctx::{IterArg, RawTpArg, raw_tp_arg};
    assert!(ctx::RAW_TP_ARGS.is_sorted_by_key(|(name, arg, _)| (*name, *arg)));
    assert_eq!(raw_tp_arg("sched_pi_setprio", 1), Some(RawTpArg::Null));
    assert_eq!(raw_tp_arg("sched_pi_setprio", 0), None);
    assert_eq!(raw_tp_arg("kfree_skb", 3), Some(RawTpArg::Null));
    assert_eq!(raw_tp_arg("zzz", 0), None);
    let task = ctx::iter_target("bpf_iter_task").map(|t| t.args);
    let meta = ("meta", IterArg::Trusted("bpf_iter_meta"));
    assert_eq!(
        task,
        Some(&[meta, ("task", IterArg::TrustedOrNull("task_struct"))][..])
    );
    assert_eq!(ctx::iter_target("task"), None);
    for target in ctx::ITER_TARGETS {
        assert_eq!(target.args.first(), Some(&meta), "{}", target.name);
    }
}

#[test]
fn owned_structures_can_be_released() {
    for kptr in KPTR_TYPES {
        let release = kfunc::get(kptr.release).unwrap_or_else(|| panic!("no {}", kptr.release));
        assert!(
            release.is(KfuncFlags::RELEASE) && release.since <= kptr.since,
            "{kptr:?}"
        );
    }
}
