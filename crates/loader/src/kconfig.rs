//! Values of `.kconfig` externs: kernel configuration, and what libbpf itself knows of the kernel.

use crate::error::{LoadError, LoadErrorKind as K};
use crate::object::{Extern, ExternKind, KconfigType, Object};

/// What `.kconfig` externs are filled from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kconfig<'a> {
    /// Lines `CONFIG_X=y`, as in `/boot/config-*`; others are passed over. The first value counts.
    pub config: &'a str,
    /// `LINUX_KERNEL_VERSION`: `KERNEL_VERSION(major, minor, patch)`.
    pub kernel_version: u32,
    /// `LINUX_HAS_BPF_COOKIE`: `bpf_get_attach_cookie` exists (5.15).
    pub has_bpf_cookie: bool,
    /// `LINUX_HAS_SYSCALL_WRAPPER`: system calls are functions of a `pt_regs`.
    pub has_syscall_wrapper: bool,
}

impl Object {
    /// Writes `.kconfig` values into the initial bytes of their map
    /// (`bpf_object__resolve_externs`). A weak one without a value stays zero.
    ///
    /// # Errors
    /// A value that its variable cannot hold, or a variable that is not weak and has none.
    pub fn set_kconfig(&mut self, kconfig: &Kconfig<'_>) -> Result<(), LoadError> {
        let Some(map) = self.kconfig_map() else {
            return Ok(());
        };
        let mut data = vec![0; self.maps[map].value_size as usize];
        let mut lines = std::collections::HashMap::new();
        for line in kconfig
            .config
            .lines()
            .filter(|line| line.starts_with("CONFIG_"))
        {
            let (name, value) = line
                .split_once('=')
                .filter(|(_, v)| !v.is_empty())
                .ok_or_else(|| {
                    K::BadKconfig("a line without a value".into())
                        .err()
                        .symbol(line)
                })?;
            lines.entry(name).or_insert(value);
        }
        for ext in &self.externs {
            let ExternKind::Kconfig { size, off, .. } = ext.kind else {
                continue;
            };
            let place = &mut data[off as usize..][..size as usize];
            let name = ext.name.as_str();
            let set = match lines.get(name) {
                Some(value) => set_text(ext, place, value).map(|()| true),
                None if name.starts_with("CONFIG_") => Ok(false),
                None => match linux_value(name, kconfig) {
                    Some(value) => set_number(ext, place, value).map(|()| true),
                    None if ext.weak && name.starts_with("LINUX_") => Ok(true),
                    None => Err(K::BadKconfig("unknown LINUX_ value".into()).err()),
                },
            };
            let set = set.map_err(|e| e.section(".kconfig").symbol(name))?;
            if !set && !ext.weak {
                return Err(K::UnresolvedExtern("configuration value")
                    .err()
                    .symbol(name));
            }
        }
        self.maps[map].data = data;
        Ok(())
    }
}

fn linux_value(name: &str, kconfig: &Kconfig<'_>) -> Option<u64> {
    match name {
        "LINUX_KERNEL_VERSION" => Some(kconfig.kernel_version.into()),
        "LINUX_HAS_BPF_COOKIE" => Some(kconfig.has_bpf_cookie.into()),
        "LINUX_HAS_SYSCALL_WRAPPER" => Some(kconfig.has_syscall_wrapper.into()),
        _ => None,
    }
}

/// One value as a configuration file writes it (`bpf_object__process_kconfig_line`).
fn set_text(ext: &Extern, place: &mut [u8], value: &str) -> Result<(), LoadError> {
    let ExternKind::Kconfig { ty, .. } = ext.kind else {
        return Ok(());
    };
    let bad = |what: &str| K::BadKconfig(format!("value {value}: {what}")).err();
    match value.as_bytes()[0] {
        letter @ (b'y' | b'n' | b'm') => {
            let number = match (ty, letter) {
                (KconfigType::Char, _) => letter.into(),
                (KconfigType::Bool, b'm') => return Err(bad("a bool is no tristate")),
                (KconfigType::Bool, _) => u64::from(letter == b'y'),
                // TRI_NO, TRI_YES, TRI_MODULE.
                (KconfigType::Tristate, b'n') => 0,
                (KconfigType::Tristate, b'y') => 1,
                (KconfigType::Tristate, _) => 2,
                _ => return Err(bad("implies bool, tristate or char")),
            };
            write_number(place, number);
        }
        b'"' => {
            if ty != KconfigType::CharArray {
                return Err(bad("implies a char array"));
            }
            let text = value[1..]
                .strip_suffix('"')
                .ok_or_else(|| bad("an unended string"))?;
            // A string that is too long is cut, and ended.
            let len = text.len().min(place.len() - 1);
            place.fill(0);
            place[..len].copy_from_slice(&text.as_bytes()[..len]);
        }
        _ => {
            if !matches!(ty, KconfigType::Int | KconfigType::Char) {
                return Err(bad("implies an integer"));
            }
            set_number(
                ext,
                place,
                parse_integer(value).ok_or_else(|| bad("not an integer"))?,
            )?;
        }
    }
    Ok(())
}

/// `set_kcfg_value_num`.
fn set_number(ext: &Extern, place: &mut [u8], value: u64) -> Result<(), LoadError> {
    let ExternKind::Kconfig { ty, signed, .. } = ext.kind else {
        return Ok(());
    };
    let bad = |what: &str| K::BadKconfig(format!("value {value}: {what}")).err();
    match ty {
        KconfigType::Int | KconfigType::Char => {}
        KconfigType::Bool if value <= 1 => {}
        KconfigType::Bool => return Err(bad("does not fit in a bool")),
        _ => return Err(bad("implies an integer, char or bool")),
    }
    let bits = 8 * place.len() as u32;
    let fits = match signed {
        _ if bits >= 64 => true,
        true => value.wrapping_add(1 << (bits - 1)) < 1 << bits,
        false => value >> bits == 0,
    };
    if !fits {
        return Err(bad("does not fit"));
    }
    write_number(place, value);
    Ok(())
}

fn write_number(place: &mut [u8], value: u64) {
    let bytes = value.to_le_bytes();
    let len = place.len().min(bytes.len());
    place[..len].copy_from_slice(&bytes[..len]);
}

/// As `strtoull` with base 0 reads a whole string.
fn parse_integer(text: &str) -> Option<u64> {
    let (text, negative) = match text.strip_prefix('-') {
        Some(rest) => (rest, true),
        None => (text.strip_prefix('+').unwrap_or(text), false),
    };
    let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let octal = text.strip_prefix('0').filter(|digits| !digits.is_empty());
    let digits_only = |digits: &str, radix| match digits.starts_with(['+', '-']) {
        true => None,
        false => u64::from_str_radix(digits, radix).ok(),
    };
    let number = match (hex, octal) {
        (Some(hex), _) => digits_only(hex, 16),
        (None, Some(octal)) => digits_only(octal, 8),
        (None, None) => digits_only(text, 10),
    }?;
    Some(if negative {
        number.wrapping_neg()
    } else {
        number
    })
}
