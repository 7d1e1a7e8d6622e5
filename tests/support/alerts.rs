//! Alerts whose every byte follows from the exposure and the number, so that a reader can check
//! them without having seen them before.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "each test uses its part; one that cannot go on fails"
)]

use std::collections::BTreeMap;

use nightjar::spool::Message;

/// The topic that they go to.
pub const TOPIC: &str = "nightjar_20261124_programid1";

/// Alert `number` of `exposure`, of about `bytes` bytes.
pub fn alert(exposure: &str, number: u32, bytes: usize) -> Message {
    Message {
        topic: TOPIC.into(),
        key: format!("NJR26{exposure}{}", number % 50).into_bytes(),
        headers: vec![
            ("exposure".into(), exposure.as_bytes().to_vec()),
            ("alert".into(), number.to_string().into_bytes()),
        ],
        payload: payload(exposure, number, bytes),
    }
}

fn payload(exposure: &str, number: u32, bytes: usize) -> Vec<u8> {
    let seed = exposure.bytes().fold(u64::from(number) + 1, |h, b| h.wrapping_mul(0x100_0000_01b3) ^ u64::from(b));
    let mut state = seed | 1;
    (0..bytes + number as usize % 97)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

/// All alerts of an exposure.
pub fn exposure(name: &str, count: u32, bytes: usize) -> Vec<Message> {
    (0..count).map(|number| alert(name, number, bytes)).collect()
}

/// Counts how often each (exposure, number) was read, and checks key and payload of each.
pub fn tally<'a>(
    records: impl Iterator<Item = (&'a [(String, String)], &'a [u8], &'a [u8])>,
    bytes: usize,
) -> BTreeMap<(String, u32), u32> {
    let mut counts = BTreeMap::new();
    for (headers, key, payload) in records {
        let header = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str()).unwrap();
        let (exposure, number): (&str, u32) = (header("exposure"), header("alert").parse().unwrap());
        let wanted = alert(exposure, number, bytes);
        assert!(wanted.key == key && wanted.payload == payload, "{exposure} {number} arrived damaged");
        *counts.entry((exposure.to_owned(), number)).or_default() += 1;
    }
    counts
}
