//! The lab's place on the machine's network: one bridge, named after its subnet. Never uses a subnet that the machine can
//! already reach some other way.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rand::Rng;

use crate::program::{bounded, require, run};

/// A claimed subnet 10.x.y.0/24 and its bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subnet {
    x: u8,
    y: u8,
}

impl Subnet {
    /// Claims a free one by creating its bridge: the kernel lets only one lab have the name.
    pub(crate) fn claim() -> Result<Subnet> {
        let routes = require(
            bounded(Duration::from_secs(10), "ip").args(["-4", "-o", "route", "show", "table", "all"]),
        )?;
        let start: u16 = rand::rng().random();
        for step in 0..2048_u16 {
            let number = start.wrapping_add(step);
            let subnet = Subnet { x: 232 + (number / 256 % 8) as u8, y: (number % 256) as u8 };
            if routes.split_whitespace().any(|word| subnet.overlaps(word)) {
                continue;
            }
            let made = run(bounded(Duration::from_secs(10), "ip").args([
                "link",
                "add",
                &subnet.bridge(),
                "type",
                "bridge",
            ]))?;
            if made.success() {
                return Ok(subnet);
            }
            if !made.stderr.contains("File exists") {
                made.ok().context("creating the lab's bridge")?;
            }
        }
        bail!("no free subnet for a lab among 10.232.0.0/13")
    }

    /// A short name that no other lab of this machine has.
    pub(crate) fn id(self) -> String {
        format!("{}x{}", self.x, self.y)
    }

    /// The subnet of the lab with this short name.
    pub(crate) fn of_id(id: &str) -> Option<Subnet> {
        let (x, y) = id.split_once('x')?;
        Some(Subnet { x: x.parse().ok()?, y: y.parse().ok()? })
    }

    /// The bridge's name. Interface names hold 15 characters (IFNAMSIZ).
    pub(crate) fn bridge(self) -> String {
        format!("dl{}", self.id())
    }

    /// The host's end of the wire to the node with this number.
    pub(crate) fn port(self, number: u8) -> String {
        format!("dl{}n{number}", self.id())
    }

    /// The host's own address, the nodes' default gateway.
    pub(crate) fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.x, self.y, 1)
    }

    /// The address of the node with this number.
    pub(crate) fn address(self, number: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, self.x, self.y, number)
    }

    /// Whether a word of the route table is a network that holds or lies in this one.
    fn overlaps(self, word: &str) -> bool {
        let (address, length) = word.split_once('/').unwrap_or((word, "32"));
        let (Ok(address), Ok(length)) = (address.parse::<Ipv4Addr>(), length.parse::<u32>()) else {
            return false;
        };
        let mask = u32::MAX.checked_shl(32 - length.min(24)).unwrap_or_default();
        address.to_bits() & mask == self.gateway().to_bits() & mask && length > 0
    }
}
