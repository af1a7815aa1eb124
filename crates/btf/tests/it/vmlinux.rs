//! The kernel types that are built in.

use bpfsim_btf::{Btf, Kind, Type, vmlinux};

#[test]
fn they_are_a_kernels() {
    let kernel = vmlinux().expect("built in");
    kernel.check_as_kernel().expect("Linux's own rules");
    assert_eq!(kernel.type_count(), 126_586);
    let again = Btf::parse(&kernel.to_bytes()).expect("round trip");
    assert_eq!(again.to_bytes(), kernel.to_bytes());
    let task = kernel
        .find("task_struct", Kind::Struct)
        .expect("task_struct");
    let Some(Type::Struct(task)) = kernel.ty(task) else {
        panic!("task_struct is a struct");
    };
    let pid = task.members.iter().find(|m| m.name == "pid").expect("pid");
    assert_eq!(kernel.size_of(pid.ty), Ok(4));
    for (name, kind) in [
        ("bpf_timer_start", Kind::Func),
        ("sk_buff", Kind::Struct),
        ("u64", Kind::Typedef),
        ("bpf_prog_type", Kind::Enum),
    ] {
        let id = kernel.find(name, kind).expect(name);
        assert_eq!(kernel.name_of(id), name);
        assert!(kernel.find_all(name).contains(&id));
    }
    assert_eq!(kernel.find("no_such_type", Kind::Struct), None);
}

#[test]
fn every_type_of_it_can_be_written_in_c() {
    let kernel = vmlinux().expect("built in");
    for (id, ty) in kernel.iter() {
        let written = matches!(ty.kind(), Kind::Struct | Kind::Union | Kind::Typedef);
        if written {
            bpfsim_btf::display::definition(&kernel, id).unwrap_or_else(|e| panic!("{id}: {e}"));
        }
    }
}
