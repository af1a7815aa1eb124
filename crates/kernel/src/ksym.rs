//! Variables and functions of the kernel that objects name (`__ksym`), and per-CPU addresses.
//!
//! A variable that the kernel's BTF knows has memory of its type's size, all zero but for what is
//! filled in here; of a per-CPU one there is a copy for each CPU.

use crate::ids::hash_bytes;
use crate::kernel::Kernel;
use crate::state::State;
use bpfsim_abi::Errno;
use bpfsim_btf::{Btf, Kind, Type, TypeId};
use bpfsim_loader::{ExternKind, Object};
use bpfsim_vm::{Area, GuestMem, MemError};

/// A kernel variable that some program uses.
#[derive(Clone, Debug)]
pub(crate) struct Ksym {
    pub name: String,
    pub addr: u64,
    size: u64,
    /// Of a per-CPU variable how far the copies are apart.
    stride: Option<u64>,
}

/// Where functions of the kernel seem to be: outside of guest memory.
const TEXT: u64 = 0xffff_ffff_8100_0000;
/// Bytes that a function seems to take.
const FUNCTION: u64 = 16;

impl Kernel {
    /// Makes the variables that an object names.
    pub(crate) fn make_ksyms(&mut self, object: &Object) -> Result<(), MemError> {
        for ext in &object.externs {
            if matches!(ext.kind, ExternKind::Ksym { .. }) {
                self.make_ksym(ext.essential_name())?;
            }
        }
        Ok(())
    }

    fn make_ksym(&mut self, name: &str) -> Result<(), MemError> {
        let btf = &self.layouts.btf;
        if self.st.ksym(name).is_some() {
            return Ok(());
        }
        let Some(var) = btf.find(name, Kind::Var) else {
            return Ok(());
        };
        let Some(Type::Var { ty, .. }) = btf.ty(var) else {
            return Ok(());
        };
        let size = btf.size_of(ty).unwrap_or(8).max(8) as u64;
        let stride = is_percpu(btf, var).then(|| size.next_multiple_of(64));
        let copies = stride.map_or(1, |_| self.st.cpus.len() as u64);
        let len = stride.unwrap_or(size) * copies;
        let addr = self.mem.alloc(Area::Shared, len, 64)?;
        let number = (name == "runqueues").then(|| self.layouts.member("rq", "cpu"));
        if let Some(at) = number.flatten() {
            for cpu in 0..copies {
                let to = addr + cpu * stride.unwrap_or(0) + at;
                self.mem.write_u32(to, cpu as u32);
            }
        }
        self.st.ksyms.push(Ksym {
            name: name.to_string(),
            addr,
            size,
            stride,
        });
        Ok(())
    }
}

/// True for a variable in the section of per-CPU data.
fn is_percpu(btf: &Btf, var: TypeId) -> bool {
    let section = btf.find(".data..percpu", Kind::Datasec);
    match section.and_then(|id| btf.ty(id)) {
        Some(Type::Datasec(data)) => data.vars.iter().any(|v| v.ty == var),
        _ => false,
    }
}

/// Where a function of a user program is: in what the kernel maps programs to without randomisation
/// (`ELF_ET_DYN_BASE`), by its name alone, since bpfsim does not have the program.
pub(crate) fn user_address(binary: &str, name: &str) -> u64 {
    const DYN_BASE: u64 = 0x5555_5555_4000;
    let hash = hash_bytes(format!("{binary}:{name}").as_bytes());
    DYN_BASE + hash % (1 << 28) * FUNCTION
}

impl State {
    /// The address of a variable that a program uses, or of a function; `None` for what bpfsim does
    /// not have.
    pub fn ksym_address(&self, name: &str) -> Option<u64> {
        if let Some(var) = self.ksym(name) {
            return Some(var.addr);
        }
        let function = self.kernel_btf.as_ref()?.find(name, Kind::Func)?;
        Some(TEXT + function.0 as u64 * FUNCTION)
    }

    /// Formats a text as `bpf_trace_printk` does.
    pub fn format(&self, mem: &GuestMem, format: &[u8], args: &[u64]) -> Result<Vec<u8>, Errno> {
        let symbols = |addr| {
            let (name, off, size) = self.symbol_at(addr)?;
            Some((name.to_string(), off, size))
        };
        crate::printk::format(mem, &symbols, format, args)
    }

    /// The name of the function or variable of the kernel that an address is in, how far it is
    /// into it, and its size (`kallsyms_lookup`).
    pub fn symbol_at(&self, addr: u64) -> Option<(&str, u64, u64)> {
        let within = |k: &&Ksym| addr.wrapping_sub(k.addr) < k.size;
        if let Some(var) = self.ksyms.iter().find(within) {
            return Some((&var.name, addr - var.addr, var.size));
        }
        let off = addr.checked_sub(TEXT)?;
        let id = TypeId(u32::try_from(off / FUNCTION).ok()?);
        let btf = self.kernel_btf.as_ref()?;
        let function = btf.ty(id).is_some_and(|t| t.kind() == Kind::Func);
        function.then(|| (btf.name_of(id), off % FUNCTION, FUNCTION))
    }

    pub fn ksym(&self, name: &str) -> Option<&Ksym> {
        self.ksyms.iter().find(|k| k.name == name)
    }

    /// `bpf_per_cpu_ptr`: where a per-CPU variable or object is on a CPU. `None` for what is none.
    pub fn per_cpu(&self, addr: u64, cpu: u32) -> Option<u64> {
        let within = |k: &&Ksym| addr.wrapping_sub(k.addr) < k.size;
        let stride = match self.ksyms.iter().find(within) {
            Some(var) => var.stride?,
            None => {
                let (_, object) = self.objects.around(addr)?;
                Some(object.stride as u64).filter(|&s| s != 0)?
            }
        };
        Some(addr + cpu as u64 * stride)
    }
}
