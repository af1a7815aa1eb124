//! Kernel versions: the profile that the ABI surface is read under.
use std::fmt;
use std::str::FromStr;

/// A Linux release, `major.minor`. Orders as releases do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KernelVersion {
    /// 6 of 6.18.
    pub major: u16,
    /// 18 of 6.18.
    pub minor: u16,
}

macro_rules! releases {
    ($($name:ident = $major:literal . $minor:literal;)*) => {
        impl KernelVersion {
            $(#[doc = concat!("Linux ", $major, ".", $minor)]
            pub const $name: Self = Self::new($major, $minor);)*

            /// Every release from 5.15 to the reference, oldest first.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
        }
    };
}

releases! {
    V5_15 = 5 . 15;
    V5_16 = 5 . 16;
    V5_17 = 5 . 17;
    V5_18 = 5 . 18;
    V5_19 = 5 . 19;
    V6_0 = 6 . 0;
    V6_1 = 6 . 1;
    V6_2 = 6 . 2;
    V6_3 = 6 . 3;
    V6_4 = 6 . 4;
    V6_5 = 6 . 5;
    V6_6 = 6 . 6;
    V6_7 = 6 . 7;
    V6_8 = 6 . 8;
    V6_9 = 6 . 9;
    V6_10 = 6 . 10;
    V6_11 = 6 . 11;
    V6_12 = 6 . 12;
    V6_13 = 6 . 13;
    V6_14 = 6 . 14;
    V6_15 = 6 . 15;
    V6_16 = 6 . 16;
    V6_17 = 6 . 17;
    V6_18 = 6 . 18;
}

impl KernelVersion {
    /// The kernel whose answers bpfsim gives: 6.18.
    pub const REFERENCE: Self = Self::V6_18;
    /// The oldest kernel that the tables tell apart; `since` of all that is older.
    pub const OLDEST: Self = Self::V5_15;

    /// `major.minor`.
    #[must_use]
    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }

    /// `LINUX_VERSION_CODE` with sublevel 0, as `LINUX_KERNEL_VERSION` externs read it.
    #[must_use]
    pub const fn code(self) -> u32 {
        ((self.major as u32) << 16) | ((self.minor as u32) << 8)
    }
}

impl Default for KernelVersion {
    fn default() -> Self {
        Self::REFERENCE
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// A text that is no `major.minor`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseVersionError {
    /// What was given.
    pub text: String,
}

impl fmt::Display for ParseVersionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no kernel version such as 6.18", self.text)
    }
}

impl std::error::Error for ParseVersionError {}

impl FromStr for KernelVersion {
    type Err = ParseVersionError;

    /// Takes `6.18`, `v6.18` and `6.18.3` (the sublevel is not kept).
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseVersionError {
            text: text.to_owned(),
        };
        let digits = |part: &str| {
            if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
                return Err(error());
            }
            part.parse::<u16>().map_err(|_| error())
        };
        let mut parts = text.strip_prefix('v').unwrap_or(text).split('.');
        let major = digits(parts.next().unwrap_or(""))?;
        let minor = digits(parts.next().unwrap_or(""))?;
        if let Some(sublevel) = parts.next() {
            digits(sublevel)?;
        }
        if parts.next().is_some() {
            return Err(error());
        }
        Ok(Self { major, minor })
    }
}
