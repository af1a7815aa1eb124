//! Loading verifies: what is refused, with what, and how to load all the same.

use bpfsim::{
    Ebpf, EbpfLoader, Errno, Error, FailureKind, KernelVersion, LoadError, OnUnsupported,
    ProgramInput, Sim,
};

const OBJECT: &[u8] = include_bytes!("../../../fixtures/verdicts.bpf.o");

fn run(loader: EbpfLoader, program: &str) -> Result<u32, Error> {
    let sim = Sim::new()?;
    let mut bpf = loader.only(program).load(&sim, OBJECT)?;
    let mut program = bpf.program_mut(program)?;
    let input = match program.takes_packet() {
        true => ProgramInput::packet(&[0; 64]),
        false => ProgramInput::empty(),
    };
    Ok(program.test_run(input)?.return_value)
}

#[test]
fn a_refusal_has_errno_and_log() {
    let error = Ebpf::load(&Sim::new().unwrap(), OBJECT).err().unwrap();
    let text = error.to_string();
    let Error::Load(LoadError::Rejected(rejection)) = error else {
        panic!("{text}");
    };
    assert_eq!(rejection.program, "forgets_null");
    assert_eq!(rejection.errno, Errno::EACCES);
    assert!(
        rejection.log.contains("; *counter += 1;"),
        "{}",
        rejection.log
    );
    assert!(
        text.starts_with("program `forgets_null`: -EACCES (permission denied)"),
        "{text}"
    );
    assert!(
        text.ends_with("R0 invalid mem access 'map_value_or_null'"),
        "{text}"
    );
}

/// The engine's own checks are left.
#[test]
fn what_is_refused_loads_unverified() {
    assert_eq!(
        run(EbpfLoader::new().unverified(), "forgets_null").unwrap(),
        0
    );
    let sim = Sim::new().unwrap();
    let loader = EbpfLoader::new().unverified().only("forgets_null");
    let mut bpf = loader.load(&sim, OBJECT).unwrap();
    let mut program = bpf.program_mut("forgets_null").unwrap();
    // The key is the packet's mark: there is one of 0 only.
    let mut skb = [0; 192];
    skb[8] = 1;
    let input = ProgramInput {
        ctx: skb.to_vec(),
        ..ProgramInput::packet(&[0; 64])
    };
    match program.test_run(input) {
        Err(Error::Failure(failure)) => {
            assert!(
                matches!(failure.kind, FailureKind::Fault { .. }),
                "{failure}"
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_cannot_be_judged_is_refused_unless_asked_for() {
    let error = run(EbpfLoader::new(), "wants_other").unwrap_err();
    assert!(
        matches!(&error, Error::Load(LoadError::Unjudged { .. })),
        "{error}"
    );
    let sim = Sim::new().unwrap();
    let loader = EbpfLoader::new().on_unsupported(OnUnsupported::RunChecked);
    let bpf = loader.only("wants_other").load(&sim, OBJECT).unwrap();
    assert_eq!(bpf.programs().count(), 1);
}

/// `BPF_PROBE_MEM`: without the verifier's word the same load is a fault.
#[test]
fn a_load_from_nowhere_gives_0() {
    assert_eq!(run(EbpfLoader::new(), "probes").unwrap(), 0);
    assert!(run(EbpfLoader::new().unverified(), "probes").is_err());
}

#[test]
fn constants_are_set_before_the_load() {
    assert_eq!(run(EbpfLoader::new(), "limited").unwrap(), 7);
    let set = EbpfLoader::new().set_global("limit", &9u32);
    assert_eq!(run(set, "limited").unwrap(), 9);
    let sim = Sim::new().unwrap();
    let mut bpf = EbpfLoader::new()
        .only("limited")
        .load(&sim, OBJECT)
        .unwrap();
    assert!(bpf.set_global("limit", &9u32).is_err());
}

#[test]
fn an_older_kernel_lacks_what_came_later() {
    let on = |version| EbpfLoader::new().kernel(version);
    let error = run(on(KernelVersion::V5_15), "loops").unwrap_err();
    assert_eq!(
        error.to_string(),
        "program `loops`: Linux 5.15 lacks helper bpf_loop (since 5.17)"
    );
    assert_eq!(run(on(KernelVersion::V5_17), "loops").unwrap(), 10);
    assert_eq!(run(on(KernelVersion::V6_1), "either_way").unwrap(), 1);
    assert_eq!(run(on(KernelVersion::V6_2), "either_way").unwrap(), 2);
}

/// One line; `{:#}` explains it on the C lines, and the data is there too.
#[test]
fn refusals_are_explained() {
    let error = Ebpf::load(&Sim::new().unwrap(), OBJECT).err().unwrap();
    assert_eq!(error.to_string().lines().count(), 1, "{error}");
    let told = format!("{error:#}");
    assert!(told.contains("verdicts.bpf.c:52"), "{told}");
    assert!(told.contains("required: "), "{told}");
    let explanation = error.explanation().unwrap();
    assert_eq!(explanation.insn, Some(7));
    assert_eq!(explanation.because[0].asm, "call bpf_map_lookup_elem");
    assert_eq!(explanation.place.as_ref().unwrap().line, 52);
}

/// What there is to call is what the types that are given have.
#[test]
fn another_kernels_types() {
    let types = include_bytes!("../../../fixtures/kernels/small-5.15.btf");
    let types = std::sync::Arc::new(bpfsim_btf::Btf::parse(types).unwrap());
    let on = || {
        let loader = EbpfLoader::new().kernel(KernelVersion::V6_2);
        loader.btf(types.clone())
    };
    // It has no bpf_rcu_read_lock, which 6.2 has.
    assert_eq!(run(on(), "either_way").unwrap(), 1);
    assert_eq!(run(EbpfLoader::new(), "either_way").unwrap(), 2);
}

/// What each program of the fixture is refused with for what it attaches to; the others load.
const TARGETS: &[(&str, &str)] = &[
    ("sleeps_at_entry", "do_unlinkat is not sleepable"),
    (
        "sleeps_in_page_cache",
        "__filemap_add_folio is not sleepable",
    ),
    ("modifies", "do_unlinkat() is not modifiable"),
    ("sleeps_at_hook", "security_file_open is not sleepable"),
    (
        "before_programs",
        "Attaching tracing programs to function 'migrate_disable' is rejected.",
    ),
    (
        "after_exit",
        "Attaching fexit/fmod_ret to __noreturn function 'do_exit' is rejected.",
    ),
    (
        "with_variable_args",
        "The function _printk with variable args is unsupported.",
    ),
    ("freed_sleeps", "bpf_lsm_task_free is not sleepable"),
    (
        "hook_disabled",
        "points to disabled hook bpf_lsm_getprocattr",
    ),
];

/// From Linux's sources: fentry and LSM programs were not loaded there.
#[test]
fn not_every_function_takes_every_program() {
    const OBJECT: &[u8] = include_bytes!("../../../fixtures/attach_targets.bpf.o");
    let object = bpfsim_loader::load(OBJECT).unwrap();
    let mut refused = 0;
    for program in &object.programs {
        let name = program.name.as_str();
        let expected = TARGETS.iter().find(|(n, _)| *n == name);
        let loaded = EbpfLoader::new()
            .only(name)
            .load(&Sim::new().unwrap(), OBJECT);
        match (loaded, expected) {
            (Ok(_), None) => {}
            (Err(Error::Load(LoadError::Rejected(rejection))), Some((_, line))) => {
                assert_eq!(rejection.errno, Errno::EINVAL, "{name}");
                assert!(rejection.log.contains(line), "{name}: {}", rejection.log);
                refused += 1;
            }
            (Err(error), _) => panic!("{name}: {error}"),
            (Ok(_), Some(_)) => panic!("{name} was taken"),
        }
    }
    assert_eq!(refused, TARGETS.len());
}
