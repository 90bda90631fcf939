//! The address of a GPU on the PCI bus, however it is spelt. Pure.

use std::fmt;
use std::str::FromStr;

/// Domain, bus and device; a GPU is function 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    /// 0 on most machines.
    pub domain: u32,
    /// Bus.
    pub bus: u8,
    /// Device on the bus.
    pub device: u8,
}

/// The text is no PCI address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a PCI address looks like 0000:18:00")]
pub struct NoAddress;

impl FromStr for PciAddress {
    type Err = NoAddress;

    /// `0000:18:00` as the kernel log has it, `00000000:18:00.0` as NVML has it, and the older `18:00`.
    fn from_str(text: &str) -> Result<Self, NoAddress> {
        let (text, function) = text.split_once('.').unwrap_or((text, "0"));
        let mut parts = text.rsplitn(3, ':');
        let number = |part: Option<&str>| {
            let part = part.filter(|part| part.len() <= 8).ok_or(NoAddress)?;
            let plain = part.bytes().all(|b| b.is_ascii_hexdigit());
            let number = u32::from_str_radix(part, 16).map_err(|_| NoAddress)?;
            plain.then_some(number).ok_or(NoAddress)
        };
        let byte = |part| u8::try_from(number(part)?).map_err(|_| NoAddress);
        let (device, bus) = (byte(parts.next())?, byte(parts.next())?);
        let domain = parts.next().map_or(Ok(0), |part| number(Some(part)))?;
        number(Some(function))?;
        Ok(Self {
            domain,
            bus,
            device,
        })
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            domain,
            bus,
            device,
        } = self;
        write!(f, "{domain:04x}:{bus:02x}:{device:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_spellings_are_one_address() {
        let address = PciAddress {
            domain: 0,
            bus: 0x3b,
            device: 0,
        };
        for text in ["0000:3b:00", "00000000:3B:00.0", "3b:00", "0000:3b:00.0"] {
            assert_eq!(text.parse(), Ok(address), "{text}");
        }
        assert_eq!(
            "10000:03:1f".parse(),
            Ok(PciAddress {
                domain: 0x10000,
                bus: 3,
                device: 0x1f
            })
        );
        assert_eq!(address.to_string(), "0000:3b:00");
        for text in [
            "",
            ":",
            "3b",
            "0000:3b:",
            "0000:13b:00",
            "0:+3:00",
            "0:0:0:0",
            "0000:3b:00.",
            "000000000:3b:00",
        ] {
            assert_eq!(text.parse::<PciAddress>(), Err(NoAddress), "{text}");
        }
    }
}
