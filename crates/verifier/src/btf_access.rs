//! Memory that BTF describes: walking structs, trust, kptrs (`check_ptr_to_btf_access`).

use bpfsim_abi::map::Fields;
use bpfsim_abi::{MapType, ProgType};
use bpfsim_btf::{Btf, Composite, Kind, Type, TypeId};

use crate::log::type_str;
use crate::record::RField;
use crate::refusal::{quiet, reject};
use crate::reg::{BTF_KERNEL, Reg, ty};
use crate::verifier::{R, Stop, Verifier, field};

/// Types whose objects RCU protects: `rcu_protected_types`.
const RCU_PROTECTED: [&str; 5] = [
    "prog_test_ref_kfunc",
    "cgroup",
    "bpf_cpumask",
    "task_struct",
    "bpf_crypto_ctx",
];

/// Where a walk ends.
enum Walk<'b> {
    Scalar,
    Ptr(TypeId, &'b str),
    /// A pointer to no struct.
    PtrUntrusted,
    Struct(TypeId),
}

/// The element type of an array of arrays, and how many there are.
fn flatten<'b>(btf: &'b Btf, id: TypeId) -> Option<(TypeId, Type<'b>, u32)> {
    let (mut id, mut t) = btf.resolve(id).ok()?;
    let mut count = 1u32;
    while let Type::Array(a) = t {
        count = count.wrapping_mul(a.nelems);
        (id, t) = btf.resolve(a.elem).ok()?;
    }
    Some((id, t, count))
}

fn composite<'b>(t: Type<'b>) -> Option<(Composite<'b>, bool)> {
    match t {
        Type::Struct(c) => Some((c, false)),
        Type::Union(c) => Some((c, true)),
        _ => None,
    }
}

impl Verifier<'_> {
    /// `btf_struct_walk`
    fn walk<'b>(
        &mut self,
        btf: &'b Btf,
        id: TypeId,
        off: i32,
        size: i32,
        flags: &mut u32,
        flex: bool,
    ) -> R<Walk<'b>> {
        let mut at = btf.resolve(id).map(|(_, t)| t).unwrap_or(Type::Void);
        let mut off = i64::from(off);
        let size = i64::from(size);
        'again: loop {
            let Some((c, is_union)) = composite(at) else {
                reject!(self, EINVAL, "Type '{}' is not a struct\n", at.name());
            };
            let name = c.name;
            if is_union && c.members.len() != 1 {
                *flags |= ty::UNTRUSTED;
            }
            if off + size > i64::from(c.size) {
                match flex_element(btf, &c, off).filter(|_| flex) {
                    Some((_, Type::Int(_))) => return Ok(Walk::Scalar),
                    Some((moff, t)) if composite(t).is_some_and(|(e, _)| e.size != 0) => {
                        let len = composite(t).map_or(1, |(e, _)| e.size);
                        off = (off - moff) % i64::from(len);
                        at = t;
                        continue 'again;
                    }
                    _ => reject!(
                        self,
                        EACCES,
                        "access beyond struct {name} at off {off} size {size}\n"
                    ),
                }
            }
            for m in c.members.iter() {
                let mut moff = i64::from(m.bit_offset / 8);
                if off + size <= moff {
                    break;
                }
                if m.bitfield_size != 0 {
                    let end = i64::from((m.bit_offset + u32::from(m.bitfield_size)).div_ceil(8));
                    if off <= moff && end <= off + size {
                        return Ok(Walk::Scalar);
                    }
                    continue;
                }
                if off < moff {
                    break;
                }
                let (Ok(msize), Some((mut mid, mut mt, count))) =
                    (btf.size_of(m.ty), flatten(btf, m.ty))
                else {
                    reject!(self, EFAULT, "field {} doesn't have size\n", m.name);
                };
                let mut msize = i64::from(msize);
                let end = moff + msize;
                if off >= end {
                    continue;
                }
                let is_array = matches!(btf.resolve(m.ty), Ok((_, Type::Array(_))));
                if is_array {
                    if moff == end || count == 0 {
                        continue;
                    }
                    msize /= i64::from(count);
                    if msize == 0 {
                        continue;
                    }
                    moff += (off - moff) / msize * msize;
                    (mid, mt) = btf.resolve(mid).unwrap_or((mid, mt));
                }
                if composite(mt).is_some() {
                    if off == moff {
                        return Ok(Walk::Struct(mid));
                    }
                    off -= moff;
                    at = mt;
                    continue 'again;
                }
                if let Type::Ptr { to } = mt {
                    if msize != size || off != moff {
                        reject!(
                            self,
                            EACCES,
                            "cannot access ptr member {} with moff {moff} in struct {name} with off {off} size {size}\n",
                            m.name
                        );
                    }
                    let tag = match btf.ty(to) {
                        Some(Type::TypeTag { name: "user", .. }) => ty::USER,
                        Some(Type::TypeTag { name: "percpu", .. }) => ty::PERCPU,
                        Some(Type::TypeTag { name: "rcu", .. }) => ty::RCU,
                        _ => 0,
                    };
                    if let Ok((id, Type::Struct(_) | Type::Union(_))) = btf.resolve(to) {
                        *flags |= tag;
                        return Ok(Walk::Ptr(id, m.name));
                    }
                    return Ok(Walk::PtrUntrusted);
                }
                if off + size > end && *flags & ty::UNTRUSTED == 0 {
                    reject!(
                        self,
                        EACCES,
                        "access beyond the end of member {} (mend:{end}) in struct {name} with off {off} size {size}\n",
                        m.name
                    );
                }
                return Ok(Walk::Scalar);
            }
            reject!(
                self,
                EINVAL,
                "struct {name} doesn't have field at offset {off}\n"
            );
        }
    }

    /// `btf_struct_access`: the type that a read gives, its id, flags and the field's name.
    fn struct_access(&mut self, reg: &Reg, off: i32, size: i32) -> R<(u32, u32, u32, String)> {
        let alloc = ty::is_alloc(reg.ty);
        if alloc && let Some(record) = self.struct_record(reg.a, reg.b) {
            for f in &record.fields {
                let (start, end) = (f.offset as i32, (f.offset + f.size) as i32);
                if off < end && start < off + size {
                    reject!(self, EACCES, "direct access to {} is disallowed\n", f.name);
                }
            }
        }
        let Some(btf) = self.btf(reg.a) else {
            return self.bug(format_args!("btf"));
        };
        let (mut id, mut off) = (TypeId(reg.b), off);
        let mut flags = 0;
        for _ in 0..64 {
            match self.walk(btf, id, off, size, &mut flags, !alloc)? {
                Walk::Ptr(..) if alloc => return Ok((ty::SCALAR, 0, 0, String::new())),
                Walk::Ptr(to, name) => return Ok((ty::BTF_ID, to.0, flags, name.to_owned())),
                Walk::Scalar => return Ok((ty::SCALAR, 0, 0, String::new())),
                Walk::PtrUntrusted => {
                    return Ok((ty::MEM, 0, ty::RDONLY | ty::UNTRUSTED, String::new()));
                }
                Walk::Struct(next) => (id, off) = (next, 0),
            }
        }
        Err(quiet!(
            self,
            EINVAL,
            "structures nested too deep for the walk"
        ))
    }

    /// `btf_struct_ids_match`
    pub(crate) fn ids_match(
        &mut self,
        from: (u32, u32),
        off: i32,
        need: (u32, u32),
        strict: bool,
    ) -> R<bool> {
        if off == 0 && from == need {
            return Ok(true);
        }
        if strict {
            return Ok(false);
        }
        let Some(btf) = self.btf(from.0) else {
            return Ok(false);
        };
        let (mut id, mut off) = (TypeId(from.1), off);
        let mut flags = 0;
        for _ in 0..64 {
            match self.walk(btf, id, off, 1, &mut flags, false) {
                Ok(Walk::Struct(next)) => {
                    if (from.0, next.0) == need {
                        return Ok(true);
                    }
                    (id, off) = (next, 0);
                }
                Err(Stop::Unsupported(what)) => return Err(Stop::Unsupported(what)),
                _ => return Ok(false),
            }
        }
        Ok(false)
    }

    /// `mark_btf_ld_reg`
    pub(crate) fn load_btf(&mut self, dst: usize, base: u32, to: (u32, u32), flags: u32) -> R {
        let mut reg = Reg::UNKNOWN;
        if base != ty::SCALAR {
            reg = Reg::pointer(base | flags);
            if base == ty::BTF_ID {
                (reg.a, reg.b) = to;
            }
            if ty::maybe_null(flags) {
                reg.id = self.new_id();
            }
        }
        self.regs_mut()[dst] = reg;
        Ok(())
    }

    pub(crate) fn in_rcu(&self) -> bool {
        self.cur.active_rcu || self.cur.active_locks != 0 || !self.cur.in_sleepable
    }

    /// `btf_nested_type_is_trusted`
    fn nested_is(&self, reg: &Reg, field: &str, id: u32, suffix: &str) -> bool {
        let Some(btf) = self.btf(reg.a) else {
            return false;
        };
        let (kind, name) = match btf.ty(TypeId(reg.b)) {
            Some(Type::Struct(c)) => (Kind::Struct, c.name),
            Some(Type::Union(c)) => (Kind::Union, c.name),
            _ => return false,
        };
        let safe = btf.find(&format!("{name}{suffix}"), kind);
        let Some((c, _)) = safe.and_then(|id| btf.ty(id)).and_then(composite) else {
            return false;
        };
        c.members.iter().any(|m| match btf.ty(m.ty) {
            Some(Type::Ptr { to }) => {
                m.name == field && btf.resolve(to).is_ok_and(|(to, _)| to.0 == id)
            }
            _ => false,
        })
    }

    /// `check_ptr_to_btf_access`
    pub(crate) fn check_btf(
        &mut self,
        n: usize,
        off: i32,
        size: i32,
        write: bool,
        value: Option<usize>,
    ) -> R {
        let reg = self.reg(n);
        let name = self.btf_name(reg.a, reg.b).to_owned();
        if !self.prog.gpl_compatible && reg.a == BTF_KERNEL {
            reject!(
                self,
                EINVAL,
                "Cannot access kernel 'struct {name}' from non-GPL compatible program\n"
            );
        }
        if off < 0 {
            reject!(
                self,
                EACCES,
                "R{n} is ptr_{name} invalid negative access: off={off}\n"
            );
        }
        if !reg.var_off.equals(0) {
            reject!(
                self,
                EACCES,
                "R{n} is ptr_{name} invalid variable offset: off={off}, var_off={}\n",
                reg.var_off
            );
        }
        if reg.ty & ty::USER != 0 {
            reject!(
                self,
                EACCES,
                "R{n} is ptr_{name} access user memory: off={off}\n"
            );
        }
        if reg.ty & ty::PERCPU != 0 {
            reject!(
                self,
                EACCES,
                "R{n} is ptr_{name} access percpu memory: off={off}\n"
            );
        }
        let has_hook = matches!(
            self.prog_type,
            ProgType::Xdp | ProgType::SchedCls | ProgType::SchedAct | ProgType::StructOps
        );
        if has_hook && !ty::is_alloc(reg.ty) && write {
            return self.write_struct(&name, off, size);
        }
        if write && !ty::is_alloc_obj(reg.ty) {
            reject!(self, EACCES, "only read is supported\n");
        }
        if ty::is_alloc(reg.ty)
            && !ty::is_non_own(reg.ty)
            && reg.ty & ty::RCU == 0
            && reg.ref_obj_id == 0
        {
            return self.bug(format_args!(
                "ref_obj_id for allocated object must be non-zero"
            ));
        }
        let (base, id, mut flags, fname) = self.struct_access(&reg, off, size)?;
        if base == ty::BTF_ID {
            flags = self.walked_flags(&reg, &fname, id, flags);
        }
        match value.filter(|_| !write) {
            Some(dst) => self.load_btf(dst, base, (reg.a, id), flags),
            None => Ok(()),
        }
    }

    /// What a pointer that was read through another may be trusted with.
    fn walked_flags(&self, reg: &Reg, name: &str, id: u32, mut flags: u32) -> u32 {
        if reg.ty & ty::UNTRUSTED != 0 {
            return ty::UNTRUSTED;
        }
        let clear = ty::TRUST_MASK | ty::RCU;
        if !Self::is_trusted(reg) && reg.ty & ty::RCU == 0 {
            return flags & !clear;
        }
        if self.nested_is(reg, name, id, "__safe_trusted") {
            return flags | ty::TRUSTED;
        }
        if self.nested_is(reg, name, id, "__safe_trusted_or_null") {
            return flags | ty::TRUSTED | ty::MAYBE_NULL;
        }
        if !self.in_rcu() || ty::maybe_null(reg.ty) {
            return ty::UNTRUSTED;
        }
        if self.nested_is(reg, name, id, "__safe_rcu") {
            return flags | ty::RCU;
        }
        let or_null = self.nested_is(reg, name, id, "__safe_rcu_or_null");
        if flags & ty::RCU != 0 || or_null {
            flags |= ty::RCU | ty::MAYBE_NULL;
            if or_null {
                flags &= !ty::UNTRUSTED;
            }
            return flags;
        }
        match flags & (ty::PERCPU | ty::USER) {
            0 => flags & !clear,
            _ => flags,
        }
    }

    /// `bpf_dummy_ops_btf_struct_access`
    fn write_dummy(&mut self, name: &str, off: i32, size: i32) -> R {
        let state = "bpf_dummy_ops_state";
        if name != state {
            reject!(
                self,
                EACCES,
                "only access to bpf_dummy_ops_state is supported\n"
            );
        }
        let kernel = self.env.kernel;
        let len = kernel
            .find(state, Kind::Struct)
            .and_then(|id| kernel.size_of(id).ok());
        if i64::from(off) + i64::from(size) > len.unwrap_or(0) as i64 {
            reject!(self, EACCES, "write access at off {off} with size {size}\n");
        }
        Ok(())
    }

    /// `bpf_scx_btf_struct_access`
    fn write_scheduled(&mut self, name: &str, off: i32, size: i32) -> R {
        const WRITABLE: [&str; 3] = ["slice", "dsq_vtime", "disallow"];
        let scx = self.member_at("task_struct", "scx");
        let within = |member: &str| {
            let (at, _) = scx?;
            let (from, len) = self.member_at("sched_ext_entity", member)?;
            Some(off >= at + from && off + size <= at + from + len)
        };
        let writable = WRITABLE.iter().any(|m| within(m) == Some(true));
        match name == "task_struct" && writable {
            true => Ok(()),
            false => Err(quiet!(
                self,
                EACCES,
                "a write to what sched_ext programs only read"
            )),
        }
    }

    /// A write that the program type's own rule decides: `ops->btf_struct_access`.
    fn write_struct(&mut self, name: &str, off: i32, size: i32) -> R {
        let ops = self.attach.name.unwrap_or("");
        if self.prog_type != ProgType::StructOps {
            if !matches!(name, "nf_conn" | "nf_conn___init") {
                reject!(self, EACCES, "only read is supported\n");
            }
            let Some((at, len)) = self.member_at("nf_conn", "mark") else {
                return self.unsupported("struct nf_conn");
            };
            if off != at {
                reject!(self, EACCES, "no write support to nf_conn at off {off}\n");
            }
            let end = at + len;
            if off + size > end {
                reject!(
                    self,
                    EACCES,
                    "write access at off {off} with size {size} beyond the member of nf_conn ended at {end}\n"
                );
            }
            return Ok(());
        }
        if ops == "bpf_dummy_ops" {
            return self.write_dummy(name, off, size);
        }
        if ops == "sched_ext_ops" {
            return self.write_scheduled(name, off, size);
        }
        let fields: &[&str] = match (ops, name) {
            ("tcp_congestion_ops", "tcp_sock") => &[
                "sk_pacing_rate",
                "sk_pacing_status",
                "icsk_ca_priv",
                "icsk_ack.pending",
                "snd_cwnd",
                "snd_cwnd_cnt",
                "snd_cwnd_stamp",
                "snd_ssthresh",
                "ecn_flags",
                "app_limited",
            ],
            ("tcp_congestion_ops", _) => {
                reject!(self, EACCES, "only read is supported\n")
            }
            _ => return self.unsupported(format!("writes to kernel structs in {ops}")),
        };
        for path in fields {
            let Some((start, len)) = self.member_at(name, path) else {
                continue;
            };
            if off < start || off >= start + len {
                continue;
            }
            if off + size > start + len {
                let end = start + len;
                reject!(
                    self,
                    EACCES,
                    "write access at off {off} with size {size} beyond the member of tcp_sock ended at {end}\n"
                );
            }
            return Ok(());
        }
        reject!(self, EACCES, "no write support to tcp_sock at off {off}\n")
    }

    /// Offset and size of a member, wherever it lies within a struct.
    fn member_at(&self, name: &str, path: &str) -> Option<(i32, i32)> {
        let kernel = self.env.kernel;
        let id = kernel.find(name, Kind::Struct)?;
        let (want, rest) = path.split_once('.').unwrap_or((path, ""));
        let mut todo = vec![(id, 0u32, want, rest)];
        while let Some((id, base, want, rest)) = todo.pop() {
            let (_, t) = kernel.resolve(id).ok()?;
            let Some((c, _)) = composite(t) else {
                continue;
            };
            for (i, m) in c.members.iter().enumerate() {
                let at = base + m.bit_offset / 8;
                if m.name == want {
                    if rest.is_empty() {
                        return Some((at as i32, kernel.size_of(m.ty).ok()? as i32));
                    }
                    todo.push((m.ty, at, rest, ""));
                } else if m.name.is_empty() || i == 0 && base == at {
                    todo.push((m.ty, at, want, rest));
                }
            }
        }
        None
    }

    /// `check_ptr_to_map_access`
    pub(crate) fn check_map_ptr(
        &mut self,
        n: usize,
        off: i32,
        size: i32,
        write: bool,
        value: Option<usize>,
    ) -> R {
        use MapType as M;
        let reg = self.reg(n);
        let Some(map) = reg.map().and_then(|m| self.maps.get(m)) else {
            return self.bug(format_args!("map"));
        };
        let name = match map.map_type {
            M::Array
            | M::PercpuArray
            | M::ProgArray
            | M::PerfEventArray
            | M::CgroupArray
            | M::ArrayOfMaps => "bpf_array",
            M::Hash | M::PercpuHash | M::LruHash | M::LruPercpuHash | M::HashOfMaps => "bpf_htab",
            M::LpmTrie => "lpm_trie",
            M::StackTrace => "bpf_stack_map",
            M::Queue | M::Stack => "bpf_queue_stack",
            M::Devmap | M::DevmapHash => "bpf_dtab",
            M::Cpumap => "bpf_cpu_map",
            M::Xskmap => "xsk_map",
            M::Sockmap => "bpf_stab",
            M::Sockhash => "bpf_shtab",
            M::ReuseportSockarray => "reuseport_array",
            M::SkStorage | M::InodeStorage | M::TaskStorage | M::CgrpStorage => {
                "bpf_local_storage_map"
            }
            M::Ringbuf | M::UserRingbuf => "bpf_ringbuf_map",
            M::BloomFilter => "bpf_bloom_filter",
            M::Arena => "bpf_arena",
            M::StructOps => "bpf_struct_ops_map",
            _ => "bpf_cgroup_storage_map",
        };
        if off < 0 {
            reject!(
                self,
                EACCES,
                "R{n} is {name} invalid negative access: off={off}\n"
            );
        }
        if write {
            reject!(self, EACCES, "only read from {name} is supported\n");
        }
        let Some(id) = self.env.kernel.find(name, Kind::Struct) else {
            return self.unsupported(format!("struct {name}"));
        };
        let mut map_reg = Reg::pointer(ty::BTF_ID);
        (map_reg.a, map_reg.b) = (BTF_KERNEL, id.0);
        let (base, id, flags, _) = self.struct_access(&map_reg, off, size)?;
        match value {
            Some(dst) => self.load_btf(dst, base, (BTF_KERNEL, id), flags),
            None => Ok(()),
        }
    }

    /// `btf_ld_kptr_type`
    pub(crate) fn kptr_flags(&mut self, f: &RField) -> u32 {
        let percpu = f.bit == Fields::KPTR_PERCPU.bits();
        let protected = f.target.0 != BTF_KERNEL
            || RCU_PROTECTED.contains(&self.btf_name(f.target.0, f.target.1));
        let safe = percpu || f.bit == Fields::KPTR_REF.bits() && protected;
        if !safe || !self.in_rcu() {
            return ty::MAYBE_NULL | ty::UNTRUSTED;
        }
        let mut flags = ty::MAYBE_NULL | ty::RCU;
        if percpu {
            flags |= ty::PERCPU;
        } else if f.target.0 != BTF_KERNEL {
            flags |= ty::ALLOC;
        }
        let record = self.struct_record(f.target.0, f.target.1);
        if record.is_some_and(|r| r.has(field::LIST_NODE | field::RB_NODE)) {
            flags |= ty::NON_OWN;
        }
        flags
    }

    /// `map_kptr_match_type`
    pub(crate) fn kptr_match(&mut self, f: &RField, reg: &Reg, n: usize) -> R {
        let unref = f.bit == Fields::KPTR_UNREF.bits();
        let mut allowed = ty::MAYBE_NULL;
        if reg.a == BTF_KERNEL || reg.base() != ty::BTF_ID {
            allowed |= ty::TRUSTED | ty::RCU;
            if unref {
                allowed |= ty::UNTRUSTED;
            }
        } else {
            allowed |= ty::ALLOC;
            if f.bit == Fields::KPTR_PERCPU.bits() {
                allowed |= ty::PERCPU;
            }
        }
        let mut name = String::new();
        if reg.base() == ty::BTF_ID && reg.ty & !ty::BASE & !allowed == 0 {
            name = self.btf_name(reg.a, reg.b).to_owned();
            self.check_ptr_off_reg(reg, n, true)
                .map_err(|e| e.with(bpfsim_abi::Errno::EACCES))?;
            if self.ids_match((reg.a, reg.b), reg.off, f.target, !unref)? {
                return Ok(());
            }
        }
        let target = self.btf_name(f.target.0, f.target.1).to_owned();
        let t = type_str(reg.ty);
        let or = match unref {
            true => format!(" or untrusted_ptr_{target}"),
            false => String::new(),
        };
        reject!(
            self,
            EINVAL,
            "invalid kptr access, R{n} type={t}{name} expected=ptr_{target}{or}\n"
        );
    }
}

/// The element of a flexible array at the end of a struct, and where it begins.
fn flex_element<'b>(btf: &'b Btf, c: &Composite<'b>, off: i64) -> Option<(i64, Type<'b>)> {
    let last = c.members.iter().last()?;
    let (_, Type::Array(a)) = btf.resolve(last.ty).ok()? else {
        return None;
    };
    let moff = i64::from(last.bit_offset / 8);
    if a.nelems != 0 || off < moff {
        return None;
    }
    Some((moff, btf.resolve(a.elem).ok()?.1))
}
