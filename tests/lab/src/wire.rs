//! A wire like those of the world between a node and the lab's bridge: delay, jitter, loss, a slow line, a dead one. Works on
//! every kernel with TAP devices, because this process carries the frames itself; never outlives it.
//!
//! ```text
//!  node eth0 ══ veth ══ bridge of the wire ══ TAP ─▶ Way ─▶ TAP ══ bridge of the lab
//!                                                 ◀─ Way ◀─
//! ```

use std::collections::VecDeque;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tappers::{DeviceState, Interface, Tap};

use crate::program::{bounded, require, run};

/// Frames that wait in one direction; what comes on top is lost, as on real routers.
const WAITING: usize = 2_000;
/// A frame of the largest MTU that a veth may have, with its header.
const LARGEST: usize = 65_535 + 14;
/// EtherType of ARP (RFC 826): who has which address is asked next door, not at the other end of a bad line.
const ARP: [u8; 2] = [0x08, 0x06];
const ETHERNET_HEADER: usize = 14;

/// What a wire does to frames on their way. The default does nothing.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Wire {
    /// From the lab to the node.
    pub to_node: Way,
    /// From the node to the lab.
    pub from_node: Way,
    /// Of jitter and loss: from here on, the same frames have the same fate with the same seed.
    pub seed: u64,
}

/// One direction of a [`Wire`]. ARP passes every way untouched.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Way {
    /// From one end to the other.
    pub delay: Duration,
    /// Added to the delay at random, up to this. Frames never overtake each other.
    pub jitter: Duration,
    /// The part of the frames that vanishes, 0 to 1. With 1 also those that are under way.
    pub loss: f64,
    /// Bytes per second, where the line is slow.
    pub rate: Option<u64>,
    /// Packets of more bytes than this vanish, and nobody is told.
    pub largest: Option<usize>,
}

impl Way {
    /// Nothing arrives.
    pub const DEAD: Way =
        Way { delay: Duration::ZERO, jitter: Duration::ZERO, loss: 1.0, rate: None, largest: None };
}

impl Wire {
    /// Nothing arrives, either way, and nobody is told.
    pub const DEAD: Wire = Wire { to_node: Way::DEAD, from_node: Way::DEAD, seed: 0 };

    /// The same both ways: half of the round trip each, and this loss (0 to 1) each.
    #[must_use]
    pub fn new(round_trip: Duration, loss: f64) -> Wire {
        let way = Way { delay: round_trip / 2, loss, ..Way::default() };
        Wire { to_node: way, from_node: way, seed: 0 }
    }
}

/// The carrier of one wire. Ends when it is dropped, and its TAP devices with it.
pub(crate) struct Relay {
    orders: Arc<Mutex<Orders>>,
    _end: PipeWriter,
}

struct Orders {
    wire: Wire,
    changes: u64,
}

impl Relay {
    /// Puts a wire between the host's end of a node's veth pair (`port`) and the lab's bridge.
    pub(crate) fn lay(port: &str, bridge: &str, wire: Wire) -> Result<Relay> {
        let own_bridge = own_bridge(port);
        let ip = |arguments: &[&str]| require(bounded(Duration::from_secs(10), "ip").args(arguments));
        ip(&["link", "add", &own_bridge, "type", "bridge"])?;
        // Without ARP: this machine would answer for its address from here, too, and the answer is the quicker one.
        ip(&["link", "set", &own_bridge, "arp", "off", "up"])?;
        let tap = |suffix, bridge| -> Result<Tap> {
            let name = format!("{port}{suffix}");
            let mut tap = Tap::new_named(Interface::new(&name)?)
                .with_context(|| format!("making the TAP device {name}; is there a /dev/net/tun?"))?;
            tap.set_nonblocking(true)?;
            tap.set_state(DeviceState::Up)?;
            ip(&["link", "set", &name, "master", bridge])?;
            Ok(tap)
        };
        let ends = [tap("b", bridge)?, tap("a", &own_bridge)?];
        let orders = Arc::new(Mutex::new(Orders { wire, changes: 0 }));
        let (stop, end) = io::pipe()?;
        let carried = Arc::clone(&orders);
        std::thread::spawn(move || carry(&ends, &carried, &stop));
        // A node that is off has no end to plug in; its next boot does.
        run(bounded(Duration::from_secs(10), "ip").args(["link", "set", port, "master", &own_bridge]))?;
        Ok(Relay { orders, _end: end })
    }

    pub(crate) fn set(&self, wire: Wire) {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        orders.wire = wire;
        orders.changes += 1;
    }
}

/// The bridge into which `boot.sh` plugs a node that has a wire.
fn own_bridge(port: &str) -> String {
    format!("{port}w")
}

/// Frames on their way in one direction.
struct Lane {
    way: Way,
    dice: StdRng,
    under_way: VecDeque<(Instant, Vec<u8>)>,
    /// When the line has sent what it was given.
    free: Instant,
    /// When the newest frame arrives.
    last: Instant,
}

impl Lane {
    fn new(now: Instant) -> Lane {
        Lane {
            way: Way::default(),
            dice: StdRng::seed_from_u64(0),
            under_way: VecDeque::new(),
            free: now,
            last: now,
        }
    }

    /// Takes a frame in at one end.
    fn admit(&mut self, now: Instant, frame: &[u8]) {
        let way = self.way;
        // The dice are thrown for every frame, so that the fate of one does not depend on the size of another.
        let lost = self.dice.random::<f64>() < way.loss;
        let jitter = way.jitter.mul_f64(self.dice.random::<f64>());
        let too_large = way.largest.is_some_and(|largest| frame.len() > largest + ETHERNET_HEADER);
        if lost || too_large || self.under_way.len() >= WAITING {
            return;
        }
        if let Some(rate) = way.rate {
            let takes = Duration::from_secs_f64(frame.len() as f64 / rate.max(1) as f64);
            self.free = self.free.max(now) + takes;
        } else {
            self.free = now;
        }
        self.last = self.last.max(self.free + way.delay + jitter);
        self.under_way.push_back((self.last, frame.to_vec()));
    }

    /// Lets out at the other end what has arrived.
    fn deliver(&mut self, now: Instant, end: &Tap) {
        while let Some((due, frame)) = self.under_way.front()
            && *due <= now
        {
            if self.way.loss < 1.0 {
                // A device that is down loses frames, as it does in life.
                let _ = end.send(frame);
            }
            self.under_way.pop_front();
        }
    }
}

/// Carries frames until the other end of `stop` or one of the devices is gone. `ends[0]` is the lab's, `ends[1]` the node's.
fn carry(ends: &[Tap; 2], orders: &Mutex<Orders>, stop: &PipeReader) {
    let mut lanes = [Lane::new(Instant::now()), Lane::new(Instant::now())];
    let mut changes = None;
    let mut frame = vec![0; LARGEST];
    loop {
        let due = lanes.iter().filter_map(|lane| lane.under_way.front()).map(|(due, _)| *due).min();
        let Some([from_lab, from_node]) = wait(ends, stop, due) else { return };
        {
            let orders = orders.lock().unwrap_or_else(PoisonError::into_inner);
            if changes.replace(orders.changes) != Some(orders.changes) {
                (lanes[0].way, lanes[1].way) = (orders.wire.to_node, orders.wire.from_node);
                lanes[0].dice = StdRng::seed_from_u64(orders.wire.seed);
                lanes[1].dice = StdRng::seed_from_u64(!orders.wire.seed);
            }
        }
        for (side, ready) in [from_lab, from_node].into_iter().enumerate() {
            while ready && let Ok(length) = ends[side].recv(&mut frame) {
                let now = Instant::now();
                if frame.get(12..14) == Some(&ARP) {
                    let _ = ends[1 - side].send(&frame[..length]);
                } else {
                    lanes[side].admit(now, &frame[..length]);
                    lanes[side].deliver(now, &ends[1 - side]);
                }
            }
        }
        let now = Instant::now();
        for (side, lane) in lanes.iter_mut().enumerate() {
            lane.deliver(now, &ends[1 - side]);
        }
    }
}

/// Sleeps until a device has a frame or one is due: which devices have. `None` is the end.
fn wait(ends: &[Tap; 2], stop: &PipeReader, due: Option<Instant>) -> Option<[bool; 2]> {
    let left = due.map(|due| due.saturating_duration_since(Instant::now()));
    let left = left.and_then(|left| Timespec::try_from(left).ok());
    let [lab, node] = ends.each_ref().map(Tap::as_fd);
    let mut watched = [
        PollFd::from_borrowed_fd(lab, PollFlags::IN),
        PollFd::from_borrowed_fd(node, PollFlags::IN),
        PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN),
    ];
    match poll(&mut watched, left.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(_) => return None,
    }
    let [lab, node, stopped] = watched.map(|each| each.revents());
    let gone = PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL;
    if !stopped.is_empty() || (lab | node).intersects(gone) {
        return None;
    }
    Some([lab, node].map(|events| events.contains(PollFlags::IN)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When each of these many frames of 1 000 bytes, sent at once, arrives.
    fn arrivals(way: Way, seed: u64, frames: usize) -> Vec<Duration> {
        let now = Instant::now();
        let mut lane = Lane { way, dice: StdRng::seed_from_u64(seed), ..Lane::new(now) };
        (0..frames).for_each(|_| lane.admit(now, &[0; 1_000]));
        lane.under_way.iter().map(|(due, _)| *due - now).collect()
    }

    #[test]
    fn a_seed_is_a_fate_and_frames_keep_their_order() {
        let way = Way { jitter: Duration::from_millis(50), loss: 0.2, ..Way::default() };
        let one = arrivals(way, 1, 1_000);
        assert_eq!(one, arrivals(way, 1, 1_000));
        assert_ne!(one, arrivals(way, 2, 1_000));
        assert!((700..900).contains(&one.len()), "{}", one.len());
        assert!(one.is_sorted());
    }

    #[test]
    fn a_slow_line_sends_one_after_the_other() {
        let way = Way { rate: Some(10_000), delay: Duration::from_secs(1), ..Way::default() };
        assert_eq!(arrivals(way, 0, 3), [1_100, 1_200, 1_300].map(Duration::from_millis));
        assert!(arrivals(Way { largest: Some(900), ..Way::default() }, 0, 3).is_empty());
    }
}
