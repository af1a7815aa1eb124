//! The one shape of the kernel's numbered enumerations.

/// Makes an enumeration whose numbers, names, kernel symbols and versions are one table.
macro_rules! kernel_enum {
    ($(#[$meta:meta])* pub enum $name:ident {
        $($variant:ident = $number:literal, $text:literal, $symbol:literal, $since:ident;)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum $name {
            $(#[doc = concat!("`", $symbol, "`")] $variant = $number,)*
        }

        impl $name {
            /// Every member, in the kernel's order; the index is the number.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// The member with the kernel's number, if there is one.
            #[must_use]
            pub const fn from_u32(number: u32) -> Option<Self> {
                if (number as usize) < Self::ALL.len() {
                    Some(Self::ALL[number as usize])
                } else {
                    None
                }
            }

            /// The kernel's number.
            #[must_use]
            pub const fn number(self) -> u32 {
                self as u32
            }

            /// The short name that tools print.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }

            /// The symbol in the kernel's headers.
            #[must_use]
            pub const fn symbol(self) -> &'static str {
                match self { $($name::$variant => $symbol,)* }
            }

            /// The member with this short name or kernel symbol.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|m| m.name() == name || m.symbol() == name)
            }

            /// The first kernel that has it; 5.15 stands for 5.15 or before.
            #[must_use]
            pub const fn since(self) -> $crate::KernelVersion {
                match self { $($name::$variant => $crate::KernelVersion::$since,)* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}
pub(crate) use kernel_enum;
