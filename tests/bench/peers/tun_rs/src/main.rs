//! A relay between two TUN devices by the crate tun-rs, with offload, by its synchronous calls.
//!
//!     relay DEVICE DEVICE
//!
//! Super-packets come cut into segments, and segments are grouped again when written: that is what `recv_multiple`
//! and `send_multiple` do, with which the crate has offload used. (Its `recv` and `send` would pass super-packets
//! with virtio's header, uncut, as `relay -o` does.) One thread a direction. Creates both devices, or attaches to
//! them, and runs until one is gone. What the other device refuses is lost.

use std::io::Error;
use std::process::exit;
use std::sync::{mpsc, Arc};
use std::{env, thread};

use tun_rs::{
    DeviceBuilder, ExpandBuffer, GROTable, SyncDevice, IDEAL_BATCH_SIZE, VIRTIO_NET_HDR_LEN,
};

const LONGEST_PACKET: usize = 65535;
/// A device that is gone, errno's EBADFD.
const GONE: i32 = 77;

/// A buffer that holds a packet, behind room for virtio's header.
#[derive(Clone)]
struct Slot {
    bytes: Box<[u8]>,
    length: usize,
}

impl Slot {
    fn new() -> Self {
        // send_multiple groups segments in the first one's buffer, and wants to have the header's room twice.
        let length = 2 * VIRTIO_NET_HDR_LEN + LONGEST_PACKET;
        Self {
            bytes: vec![0; length].into(),
            length,
        }
    }
}

impl AsRef<[u8]> for Slot {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl AsMut<[u8]> for Slot {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.length]
    }
}

impl ExpandBuffer for Slot {
    fn buf_capacity(&self) -> usize {
        self.bytes.len()
    }

    fn buf_resize(&mut self, length: usize, value: u8) {
        if length > self.length {
            self.bytes[self.length..length].fill(value);
        }
        self.length = length;
    }

    fn buf_extend_from_slice(&mut self, bytes: &[u8]) {
        let end = self.length + bytes.len();
        self.bytes[self.length..end].copy_from_slice(bytes);
        self.length = end;
    }
}

fn relay(from: &SyncDevice, to: &SyncDevice) -> Error {
    let mut whole = vec![0; VIRTIO_NET_HDR_LEN + LONGEST_PACKET];
    let mut packets = vec![Slot::new(); IDEAL_BATCH_SIZE];
    let mut lengths = vec![0; IDEAL_BATCH_SIZE];
    let mut groups = GROTable::default();
    loop {
        for packet in &mut packets {
            packet.length = packet.bytes.len();
        }
        let received =
            from.recv_multiple(&mut whole, &mut packets, &mut lengths, VIRTIO_NET_HDR_LEN);
        let count = match received {
            Ok(count) => count,
            Err(error) => return error,
        };
        for (packet, length) in packets[..count].iter_mut().zip(&lengths) {
            packet.length = VIRTIO_NET_HDR_LEN + length;
        }
        match to.send_multiple(&mut groups, &mut packets[..count], VIRTIO_NET_HDR_LEN) {
            Err(error) if error.raw_os_error() == Some(GONE) => return error,
            _ => {}
        }
    }
}

fn open(name: &str) -> Arc<SyncDevice> {
    match DeviceBuilder::new().name(name).offload(true).build_sync() {
        Ok(device) => Arc::new(device),
        Err(error) => {
            eprintln!("Cannot open device \"{name}\": {error}");
            exit(1);
        }
    }
}

fn main() {
    let names: Vec<String> = env::args().skip(1).collect();
    if names.len() != 2 {
        eprintln!("Usage: relay DEVICE DEVICE");
        exit(2);
    }
    let devices = [open(&names[0]), open(&names[1])];

    let (ended, end) = mpsc::channel();
    for i in 0..2 {
        let (from, to) = (devices[i].clone(), devices[1 - i].clone());
        let ended = ended.clone();
        thread::spawn(move || ended.send((i, relay(&from, &to))));
    }
    let (i, error) = end.recv().expect("both threads hold a sender");
    eprintln!(
        "Cannot relay from \"{}\" to \"{}\": {error}",
        names[i],
        names[1 - i]
    );
    exit(1);
}
