//! struct_ops maps: made with their object, attached and detached as libbpf does it.

use bpfsim_abi::Errno;
use bpfsim_kernel::{Config, Kernel, Loaded, MapId, Policy, Prepared, Profile, ProgId, update};
use std::path::Path;

fn loaded() -> (Kernel, Loaded) {
    let fixture = "../../fixtures/matrix/clang-22-v3/struct_ops.bpf.o";
    let bytes = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(fixture)).unwrap();
    let object = bpfsim_loader::load(&bytes).unwrap();
    let profile = Profile::reference().unwrap();
    let prepared = Prepared::new(object, &profile, Policy::Unverified).unwrap();
    let mut kernel = Kernel::new(Config::default()).unwrap();
    let loaded = kernel.load(&prepared).unwrap();
    (kernel, loaded)
}

fn map(kernel: &Kernel, name: &str) -> MapId {
    let found = kernel.maps().find(|(_, spec)| spec.name == name);
    found.map(|(id, _)| id).unwrap()
}

fn prog(loaded: &Loaded, name: &str) -> Option<ProgId> {
    let found = loaded.programs.iter().find(|(n, _)| n == name);
    found.map(|(_, id)| *id)
}

#[test]
fn members_are_the_objects_programs() {
    let (kernel, loaded) = loaded();
    for name in ["fixed", "fixed_link"] {
        let members = kernel.struct_ops_members(map(&kernel, name)).unwrap();
        let of = |name: &str| members.iter().find(|m| m.name == name).unwrap().prog;
        assert_eq!(of("ssthresh"), prog(&loaded, "fixed_ssthresh"));
        assert_eq!(of("cong_avoid"), prog(&loaded, "fixed_cong_avoid"));
        assert_eq!(of("undo_cwnd"), prog(&loaded, "fixed_undo_cwnd"));
        assert_eq!(of("cong_control"), None);
        assert!(of("ssthresh").is_some());
    }
}

/// The state in a map's value, as user space reads it.
fn state(kernel: &mut Kernel, map: MapId) -> u32 {
    let value = kernel.map_lookup(map, &[0; 4]).unwrap();
    u32::from_le_bytes(value[4..8].try_into().unwrap())
}

#[test]
fn without_a_link_the_value_is_the_registration() {
    let (mut kernel, _) = loaded();
    let fixed = map(&kernel, "fixed");
    assert_eq!(state(&mut kernel, fixed), 0);
    assert_eq!(kernel.map_delete(fixed, &[0; 4]), Err(Errno::ENOENT));
    kernel.struct_ops_attach(fixed).unwrap();
    assert_eq!(kernel.struct_ops_attached(fixed), Ok(true));
    assert_eq!(state(&mut kernel, fixed), 1);
    assert_eq!(kernel.struct_ops_attach(fixed), Err(Errno::EBUSY));
    kernel.struct_ops_detach(fixed).unwrap();
    assert_eq!(kernel.struct_ops_attached(fixed), Ok(false));
    kernel.struct_ops_attach(fixed).unwrap();
}

#[test]
fn with_a_link_the_value_stays() {
    let (mut kernel, _) = loaded();
    let linked = map(&kernel, "fixed_link");
    assert_eq!(kernel.struct_ops_detach(linked), Err(Errno::ENOENT));
    kernel.struct_ops_attach(linked).unwrap();
    assert_eq!(state(&mut kernel, linked), 3);
    assert_eq!(kernel.map_delete(linked, &[0; 4]), Err(Errno::EOPNOTSUPP));
    kernel.struct_ops_detach(linked).unwrap();
    assert_eq!(kernel.struct_ops_attached(linked), Ok(false));
    assert_eq!(state(&mut kernel, linked), 3);
    kernel.struct_ops_attach(linked).unwrap();
}

#[test]
fn what_user_space_writes_is_checked() {
    let (mut kernel, loaded) = loaded();
    let fixed = map(&kernel, "fixed");
    let size = kernel.map_spec(fixed).value_size as usize;
    let zero = vec![0; size];
    let mut write =
        |key: u32, value: &[u8], flags| kernel.map_update(fixed, &key.to_le_bytes(), value, flags);
    assert_eq!(write(0, &zero, update::EXIST), Err(Errno::EINVAL));
    assert_eq!(write(1, &zero, 0), Err(Errno::E2BIG));
    // A state or a reference count is the kernel's to write.
    for at in [0, 4] {
        let mut value = zero.clone();
        value[at] = 1;
        assert_eq!(write(0, &value, 0), Err(Errno::EINVAL));
    }
    // Each descriptor must be of a program for just that member.
    let ssthresh = prog(&loaded, "fixed_ssthresh").unwrap();
    let fd = |prog: ProgId| (prog.0 + 1).to_le_bytes();
    let mut fits = 0;
    for at in (64..size - 8).step_by(8) {
        let mut value = zero.clone();
        value[at..at + 4].copy_from_slice(&fd(ssthresh));
        match write(0, &value, 0) {
            Ok(()) => {
                fits += 1;
                break;
            }
            Err(errno) => assert_eq!(errno, Errno::EINVAL, "at {at}"),
        }
    }
    assert_eq!(fits, 1);
}
