//! What a program's section says that it attaches to.

use super::Hook;
use super::attach::AttachError;
use crate::kernel::Kernel;
use crate::prog::ProgMeta;
use bpfsim_abi::sections::{AttachTarget, attach_target, find_section};
use bpfsim_abi::{AttachType, Errno, ProgType};
use bpfsim_btf::Kind;

impl Kernel {
    /// The one hook of a program that attaches by a BTF id.
    pub(super) fn own_hook(&self, meta: &ProgMeta) -> Result<Hook, AttachError> {
        let own = self.section_hooks(meta)?.pop();
        own.ok_or_else(|| AttachError::NoTarget {
            section: meta.section.to_string(),
        })
    }

    pub(super) fn section_hooks(&self, meta: &ProgMeta) -> Result<Vec<Hook>, AttachError> {
        let target = find_section(&meta.section).and_then(|def| attach_target(def, &meta.section));
        let unsupported = |what: String| Err(AttachError::Unsupported { what });
        let Some(target) = target else {
            return match meta.prog_type {
                ProgType::StructOps => {
                    unsupported("struct_ops programs attach with their map".into())
                }
                _ => Err(AttachError::NoTarget {
                    section: meta.section.to_string(),
                }),
            };
        };
        let hook = match target {
            AttachTarget::Btf { name, .. } => {
                let name = name.to_string();
                match (meta.prog_type, meta.attach_type) {
                    (ProgType::Lsm, _) => Hook::Lsm(name),
                    (ProgType::Ext, _) => {
                        return unsupported("freplace: programs in the place of others".into());
                    }
                    (_, AttachType::TraceRawTp) => Hook::RawTracepoint(name),
                    (_, AttachType::TraceIter) => Hook::Iter(name),
                    _ => Hook::Function { name, offset: 0 },
                }
            }
            AttachTarget::Kprobe { function, offset } => Hook::Function {
                name: function.to_string(),
                offset,
            },
            AttachTarget::KprobeMulti(pattern) => return self.functions_like(pattern),
            AttachTarget::Uprobe {
                binary,
                function,
                offset,
            } => Hook::UserFunction {
                binary: binary.to_string(),
                name: function.to_string(),
                offset,
            },
            AttachTarget::UprobeMulti { binary, pattern } => {
                if pattern.contains(['*', '?']) {
                    return unsupported(format!("functions of {binary} like {pattern}: name one"));
                }
                Hook::user_function(binary, pattern)
            }
            AttachTarget::Ksyscall(name) => Hook::function(&format!("__x64_sys_{name}")),
            AttachTarget::Usdt {
                binary,
                provider,
                name,
            } => Hook::Usdt {
                binary: binary.to_string(),
                provider: provider.to_string(),
                name: name.to_string(),
            },
            AttachTarget::Tracepoint { category, name } => Hook::tracepoint(category, name),
            AttachTarget::RawTracepoint(name) => Hook::raw_tracepoint(name),
            AttachTarget::Member(_) => {
                return unsupported("struct_ops programs attach with their map".into());
            }
        };
        Ok(vec![hook])
    }

    /// The kernel's functions that a glob matches.
    fn functions_like(&self, pattern: &str) -> Result<Vec<Hook>, AttachError> {
        let btf = &self.layouts.btf;
        let names = btf.iter().filter(|(_, t)| t.kind() == Kind::Func);
        let mut names: Vec<&str> = names.map(|(id, _)| btf.name_of(id)).collect();
        names.retain(|n| glob(pattern.as_bytes(), n.as_bytes()));
        names.sort_unstable();
        names.dedup();
        if names.is_empty() {
            return Err(AttachError::Refused {
                what: format!("functions like {pattern}"),
                errno: Errno::ENOENT,
                why: None,
            });
        }
        Ok(names.into_iter().map(Hook::function).collect())
    }
}

/// Matches a name as libbpf's `glob_match` does: `*` and `?`.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // The last star, and how much of the name it has taken.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&c) if c == b'?' || c == name[n] => (p, n) = (p + 1, n + 1),
            _ => match &mut star {
                Some((at, taken)) => {
                    *taken += 1;
                    (p, n) = (*at + 1, *taken);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}
