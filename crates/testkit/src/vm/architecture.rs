//! The differences between guests of different architectures: QEMU, its machine, and its serial lines.

use std::ffi::OsString;

/// The processors for which the programs of an image are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Architecture {
    /// `x86_64`.
    #[default]
    X86,
    /// `aarch64`.
    Arm64,
}

impl Architecture {
    /// The QEMU program that emulates such processors.
    pub(crate) const fn qemu(self) -> &'static str {
        match self {
            Self::X86 => "qemu-system-x86_64",
            Self::Arm64 => "qemu-system-aarch64",
        }
    }

    /// The machine around them.
    pub(crate) const fn board(self) -> &'static str {
        match self {
            Self::X86 => "pc",
            Self::Arm64 => "virt,gic-version=3",
        }
    }

    /// The processor model, unless a test wants another. QEMU's default for arm64 has 32 bits only.
    pub(crate) const fn processor(self) -> &'static str {
        match self {
            Self::X86 => "qemu64",
            // The default algorithm of the emulated pointer authentication makes everything slow.
            Self::Arm64 => "max,pauth-impdef=on",
        }
    }

    /// The terminals of the kernel's console and of the agent.
    pub(crate) const fn terminals(self) -> (&'static str, &'static str) {
        match self {
            Self::X86 => ("ttyS0", "ttyS1"),
            // The board has one serial line; the other is a PCI card.
            Self::Arm64 => ("ttyAMA0", "ttyS0"),
        }
    }

    /// The serial line with this number.
    pub(crate) fn serial(self, line: usize) -> [OsString; 2] {
        match (self, line) {
            (Self::Arm64, 1..) => {
                ["-device".into(), format!("pci-serial,chardev=line{line}").into()]
            }
            _ => ["-serial".into(), format!("chardev:line{line}").into()],
        }
    }
}
