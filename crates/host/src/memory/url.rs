//! Names of spaces.
//!
//! # What it owns
//! The grammar of the five schemes, including those that are not supported yet: their URLs are parsed first, and an
//! error names the scheme afterwards.
//!
//! # Invariants
//! 1. [`FromStr`] reads the output of [`Display`](fmt::Display) as the same value.
//! 2. The name in `shm:NAME` is one path component: no `/`, no control character, 1 to 200 bytes.
//!
//! # What it does not do
//! It does not check whether anything exists.

use std::{error::Error, fmt, path::PathBuf, str::FromStr};

/// The most bytes of the name of a `shm:` space: file names have at most 255, and ours begin with a prefix.
const SHM_NAME_MOST: usize = 200;

/// Where a space is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Url {
    /// `shm:NAME`: a file in `/dev/shm`.
    Shm {
        /// A name of one path component.
        name: String,
    },
    /// `file:PATH`: a file on any file system, including hugetlbfs.
    File {
        /// The file.
        path: PathBuf,
    },
    /// `mem:BASE+SIZE`: a range of physical memory.
    Mem {
        /// Physical address of the first byte.
        base: u64,
        /// Bytes.
        size: u64,
    },
    /// `pci:BDF` or `pci:auto`: the memory of a PCI device.
    Pci {
        /// The device's address; `None` for the only device that fits.
        address: Option<PciAddress>,
    },
    /// `unix:SOCKET` or `unix:SOCKET#NAME`: through a broker.
    Unix {
        /// The broker's socket.
        socket: PathBuf,
        /// The name of the space at the broker; `None` for its only one.
        name: Option<String>,
    },
}

/// The address of a PCI device: `0000:00:04.0`, or `00:04.0` in domain 0.
///
/// # Examples
/// ```
/// # use commonhold_host::{PciAddress, UrlError};
/// let address: PciAddress = "00:04.0".parse()?;
/// assert_eq!((address.bus, address.device), (0, 4));
/// assert_eq!(address.to_string(), "0000:00:04.0");
/// # Ok::<(), UrlError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    /// PCI domain (segment).
    pub domain: u32,
    /// Bus.
    pub bus: u8,
    /// Device, 0 to 31.
    pub device: u8,
    /// Function, 0 to 7.
    pub function: u8,
}

/// What is wrong with a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum UrlError {
    /// There is no scheme.
    NoScheme,
    /// The scheme is unknown.
    UnknownScheme,
    /// `shm:` without a name.
    NoName,
    /// The name in `shm:NAME` is too long.
    NameTooLong,
    /// The name in `shm:NAME` has a `/` or a control character.
    NameForbidden,
    /// `file:` without a path.
    NoPath,
    /// A path with a zero byte in it.
    PathForbidden,
    /// `mem:` without `BASE+SIZE`.
    NoRange,
    /// A base or size that is not a number.
    BadNumber,
    /// A range of no bytes, or one that would wrap.
    BadRange,
    /// Neither `auto` nor an address of a PCI device.
    BadPciAddress,
    /// `unix:` without a socket.
    NoSocket,
    /// `unix:SOCKET#` with nothing after the `#`.
    NoSpaceName,
}

impl UrlError {
    /// What is wrong, in words.
    #[must_use]
    pub const fn why(&self) -> &'static str {
        match self {
            Self::NoScheme => {
                "a space is named by a scheme and a place, such as shm:NAME or file:PATH"
            }
            Self::UnknownScheme => "the scheme must be shm:, file:, mem:, pci: or unix:",
            Self::NoName => "shm: needs a name, such as shm:default",
            Self::NameTooLong => "the name after shm: may have at most 200 bytes",
            Self::NameForbidden => {
                "the name after shm: may contain neither '/' nor control characters; \
                 use file:PATH for a path"
            }
            Self::NoPath => "file: needs a path",
            Self::PathForbidden => "a path cannot contain a zero byte",
            Self::NoRange => "mem: needs BASE+SIZE, such as mem:0x100000000+64M",
            Self::BadNumber => {
                "a base or size is a decimal or 0x number, and K, M or G may follow it"
            }
            Self::BadRange => "the range of mem: must have at least one byte, and must not wrap",
            Self::BadPciAddress => {
                "pci: needs `auto` or an address such as 0000:00:04.0, as lspci -D prints it"
            }
            Self::NoSocket => "unix: needs the path of a broker's socket",
            Self::NoSpaceName => "a '#' after the socket must be followed by the name of a space",
        }
    }
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.why())
    }
}

impl Error for UrlError {}

impl Url {
    /// The scheme, with its colon: `"shm:"`.
    #[must_use]
    pub const fn scheme(&self) -> &'static str {
        match self {
            Self::Shm { .. } => "shm:",
            Self::File { .. } => "file:",
            Self::Mem { .. } => "mem:",
            Self::Pci { .. } => "pci:",
            Self::Unix { .. } => "unix:",
        }
    }

    /// Whether it names device memory, without a file: it cannot be created, grown or removed.
    #[must_use]
    pub const fn is_device(&self) -> bool {
        matches!(self, Self::Mem { .. } | Self::Pci { .. })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shm { name } => write!(f, "shm:{name}"),
            Self::File { path } => write!(f, "file:{}", path.display()),
            Self::Mem { base, size } => write!(f, "mem:{base:#x}+{size:#x}"),
            Self::Pci { address: None } => f.write_str("pci:auto"),
            Self::Pci { address: Some(address) } => write!(f, "pci:{address}"),
            Self::Unix { socket, name: None } => write!(f, "unix:{}", socket.display()),
            Self::Unix { socket, name: Some(name) } => {
                write!(f, "unix:{}#{name}", socket.display())
            }
        }
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { domain, bus, device, function } = self;
        write!(f, "{domain:04x}:{bus:02x}:{device:02x}.{function}")
    }
}

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = text.split_once(':').ok_or(UrlError::NoScheme)?;
        match scheme {
            "shm" => shm(rest),
            "file" => Ok(Self::File { path: path(rest, UrlError::NoPath)? }),
            "mem" => mem(rest),
            "pci" if rest == "auto" => Ok(Self::Pci { address: None }),
            "pci" => Ok(Self::Pci { address: Some(rest.parse()?) }),
            "unix" => unix(rest),
            _ => Err(UrlError::UnknownScheme),
        }
    }
}

fn shm(name: &str) -> Result<Url, UrlError> {
    if name.is_empty() {
        return Err(UrlError::NoName);
    }
    if name.len() > SHM_NAME_MOST {
        return Err(UrlError::NameTooLong);
    }
    if name.chars().any(|c| c == '/' || c.is_control()) {
        return Err(UrlError::NameForbidden);
    }
    Ok(Url::Shm { name: name.to_owned() })
}

fn path(text: &str, empty: UrlError) -> Result<PathBuf, UrlError> {
    if text.is_empty() {
        return Err(empty);
    }
    if text.contains('\0') {
        return Err(UrlError::PathForbidden);
    }
    Ok(PathBuf::from(text))
}

fn mem(range: &str) -> Result<Url, UrlError> {
    let (base, size) = range.split_once('+').ok_or(UrlError::NoRange)?;
    let (base, size) = (number(base)?, number(size)?);
    if size == 0 || base.checked_add(size).is_none() {
        return Err(UrlError::BadRange);
    }
    Ok(Url::Mem { base, size })
}

fn number(text: &str) -> Result<u64, UrlError> {
    let hexadecimal = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let (digits, radix) = hexadecimal.map_or((text, 10), |digits| (digits, 16));
    let unit = match digits.bytes().last() {
        Some(b'K' | b'k') => 10,
        Some(b'M' | b'm') => 20,
        Some(b'G' | b'g') => 30,
        _ => 0,
    };
    let digits = if unit == 0 { digits } else { digits.get(..digits.len() - 1).unwrap_or("") };
    if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(UrlError::BadNumber);
    }
    let value = u64::from_str_radix(digits, radix).map_err(|_| UrlError::BadNumber)?;
    value.checked_mul(1 << unit).ok_or(UrlError::BadNumber)
}

fn unix(rest: &str) -> Result<Url, UrlError> {
    let (socket, name) = match rest.rsplit_once('#') {
        Some((_, "")) => return Err(UrlError::NoSpaceName),
        Some((socket, name)) => (socket, Some(name.to_owned())),
        None => (rest, None),
    };
    Ok(Url::Unix { socket: path(socket, UrlError::NoSocket)?, name })
}

impl FromStr for PciAddress {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let bad = UrlError::BadPciAddress;
        let (rest, function) = text.split_once('.').ok_or(bad)?;
        let (rest, device) = rest.rsplit_once(':').ok_or(bad)?;
        let (domain, bus) = rest.split_once(':').unwrap_or(("0", rest));
        let hex = |digits: &str, most: u32| {
            let clean = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
            let value = u32::from_str_radix(digits, 16).ok().filter(|v| clean && *v <= most);
            value.ok_or(bad)
        };
        let small = |digits: &str, most: u32| {
            hex(digits, most).and_then(|value| u8::try_from(value).map_err(|_| bad))
        };
        Ok(Self {
            domain: hex(domain, u32::MAX)?,
            bus: small(bus, 255)?,
            device: small(device, 31)?,
            function: small(function, 7)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scheme_survives_the_round_trip() {
        for text in [
            "shm:default",
            "shm:a:b #c",
            "file:/a/b:c",
            "file:relative",
            "mem:0x100000000+0x4000000",
            "pci:auto",
            "pci:0000:00:04.0",
            "pci:10000:ff:1f.7",
            "unix:/run/a.sock",
            "unix:/run/a.sock#b",
            "unix:/run/a#b#c",
        ] {
            let url: Url = text.parse().unwrap();
            assert_eq!(url.to_string(), text);
            assert_eq!(url.to_string().parse(), Ok(url));
        }
    }

    #[test]
    fn short_forms_are_understood() {
        assert_eq!("pci:00:04.0".parse::<Url>().unwrap().to_string(), "pci:0000:00:04.0");
        let mem = "mem:4G+64M".parse::<Url>();
        assert_eq!(mem, Ok(Url::Mem { base: 4 << 30, size: 64 << 20 }));
    }

    #[test]
    fn each_invalid_url_has_its_own_error() {
        let long = format!("shm:{}", "x".repeat(201));
        for (text, error) in [
            ("default", UrlError::NoScheme),
            ("http://x", UrlError::UnknownScheme),
            ("shm:", UrlError::NoName),
            (long.as_str(), UrlError::NameTooLong),
            ("shm:a/b", UrlError::NameForbidden),
            ("shm:a\nb", UrlError::NameForbidden),
            ("file:", UrlError::NoPath),
            ("file:a\0b", UrlError::PathForbidden),
            ("mem:4096", UrlError::NoRange),
            ("mem:x+1", UrlError::BadNumber),
            ("mem:+1", UrlError::BadNumber),
            ("mem:0x+K", UrlError::BadNumber),
            ("mem:0++1", UrlError::BadNumber),
            ("mem:0+99999999999G", UrlError::BadNumber),
            ("mem:0+0", UrlError::BadRange),
            ("mem:0xffffffffffffffff+2", UrlError::BadRange),
            ("pci:", UrlError::BadPciAddress),
            ("pci:00:20.0", UrlError::BadPciAddress),
            ("pci:00:1.8", UrlError::BadPciAddress),
            ("pci:+1:1.1", UrlError::BadPciAddress),
            ("unix:", UrlError::NoSocket),
            ("unix:#a", UrlError::NoSocket),
            ("unix:/a#", UrlError::NoSpaceName),
        ] {
            assert_eq!(text.parse::<Url>(), Err(error), "{text}");
            assert_eq!(error.to_string(), error.why());
        }
    }
}
