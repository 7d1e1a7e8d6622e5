//! Promise: however often the spool is opened and dies, in whatever state, alerts are sent once: what
//! one opening announced, wrote or sent is understood by all that follow, and by the broker's cursor.
//!
//! Histories are drawn by chance: openings one after the other, each with exposures taken, the
//! broker met, transactions committed, aborted, or committed and not heard of; each ended by a kill, or by a
//! power cut at any step of the disk; now and then the disk is put back from a snapshot, or two copies of it run beside each other. The
//! broker is a cursor and a count of what it got, and knows nothing of the spool's files.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

#[path = "support/simulated_disk.rs"]
mod simulated_disk;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nightjar::exposure::ExposureId;
use nightjar::spool::cursor::Cursor;
use nightjar::spool::store::Store;
use nightjar::spool::{Aside, Epoch, Finding, Message, Order, Spool, SpoolParameters};
use proptest::prelude::*;
use simulated_disk::{Lies, SimulatedDisk, UNSYNCED, Unsynced};

/// What a transaction comes to.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// The broker has it and the spool knows.
    Settled,
    /// The broker does not have it.
    Aborted,
    /// The broker has it, and the process dies before it knows.
    Unheard,
}

#[derive(Debug, Clone, Copy)]
enum Act {
    /// An exposure of so many alerts.
    Take(u32),
    /// A session with the broker begins.
    Meet,
    /// So many alerts in one transaction.
    Send(u32, Order, Fate),
    Trim,
}

/// From an opening to its end.
#[derive(Debug, Clone)]
struct Life {
    acts: Vec<Act>,
    /// The step of the disk at which the power fails; `None` is a kill at the end.
    cut: Option<usize>,
    unsynced: Unsynced,
    names: u64,
    then: Then,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Nothing,
    Snapshot,
    Restore,
}

fn messages(exposure: &str, count: u32) -> Vec<Message> {
    let message = |n| Message {
        topic: "nightjar_20261124_programid1".into(),
        key: format!("{exposure} {n}").into_bytes(),
        headers: Vec::new(),
        payload: vec![n as u8; 20],
    };
    (0..count).map(message).collect()
}

/// What the world outside knows.
#[derive(Default)]
struct World {
    broker: Cursor,
    /// How often each alert arrived, by its key.
    got: BTreeMap<Vec<u8>, u32>,
    owed: BTreeMap<String, u32>,
    taken: u32,
    given: BTreeSet<u64>,
    named: BTreeSet<(Epoch, u64)>,
    restored: bool,
}

impl World {
    fn whole(&self, exposure: &str, count: u32) -> bool {
        messages(exposure, count).iter().all(|message| self.got.contains_key(&message.key))
    }

    fn allow(&self, findings: &[Finding]) -> Result<(), String> {
        let odd = findings.iter().find(|f| !matches!(f, Finding::Unfinished(_)));
        if self.restored { Ok(()) } else { odd.map_or(Ok(()), |f| Err(format!("a false alarm: {f}"))) }
    }

    fn take(&mut self, spool: &Spool, count: u32) -> Result<(), String> {
        self.taken += 1;
        let name = format!("e{}", self.taken);
        let Ok(receipt) = spool.append(&ExposureId::from_stored(name.as_str()), &messages(&name, count)) else {
            return Ok(());
        };
        self.owed.insert(name, count);
        if !self.named.insert((spool.epoch(), receipt.sequence)) {
            return Err(format!("number {} was given twice in one opening", receipt.sequence));
        }
        if !self.given.insert(receipt.sequence) && !self.restored {
            return Err(format!("number {} was given twice", receipt.sequence));
        }
        Ok(())
    }

    /// One transaction as the uplink makes it; false when the process is to die.
    fn send(&mut self, spool: &Spool, mut room: u32, order: Order, fate: Fate) -> Result<bool, String> {
        let mut steps = Vec::new();
        let mut keys = Vec::new();
        while room > 0 {
            let next = spool.next_waiting(order, &|s| steps.iter().any(|(known, _)| *known == s));
            let Some(next) = next else { break };
            let Ok(segment) = spool.read(next.sequence) else { return Ok(true) };
            let end = next.count.min(next.settled + room);
            for number in next.settled..end {
                let Ok(message) = segment.record(number) else { return Err(format!("{} is damaged", next.exposure)) };
                keys.push(message.key);
            }
            room -= end - next.settled;
            steps.push((next.sequence, end));
        }
        if steps.is_empty() || matches!(fate, Fate::Aborted) {
            return Ok(true);
        }
        self.broker = Cursor::decode(&spool.cursor_after(&steps).encode()).unwrap();
        for key in keys {
            let times = self.got.entry(key).or_default();
            *times += 1;
            if *times > 1 {
                return Err("an alert was sent twice".into());
            }
        }
        if matches!(fate, Fate::Unheard) {
            return Ok(false);
        }
        let _ = spool.settle(&steps, 0);
        Ok(true)
    }

    fn live(&mut self, disk: &SimulatedDisk, acts: &[Act]) -> Result<(), String> {
        let parameters = SpoolParameters { keep_sent_hours: 0.0 };
        let Ok(spool) = Spool::open_on(Arc::new(disk.clone()), parameters) else { return Ok(()) };
        self.allow(spool.findings())?;
        let mut met = false;
        for act in acts {
            match *act {
                Act::Take(count) => self.take(&spool, count)?,
                Act::Meet => {
                    self.allow(&spool.reconcile(&self.broker, 0))?;
                    met = true;
                }
                Act::Send(room, order, fate) if met => {
                    if !self.send(&spool, room, order, fate)? {
                        return Ok(());
                    }
                }
                Act::Send(..) => {}
                Act::Trim => _ = spool.trim(10),
            }
        }
        Ok(())
    }
}

/// Runs a history and compares at its end; why the promise was broken, else how many alerts arrived.
fn run(history: &[Life]) -> Result<usize, String> {
    let mut world = World::default();
    let mut disk = SimulatedDisk::new(history.first().and_then(|life| life.cut), Lies::default());
    let mut snapshot: Option<(SimulatedDisk, BTreeMap<String, u32>)> = None;
    let last = Life {
        acts: vec![Act::Meet, Act::Send(1000, Order::NewestFirst, Fate::Settled), Act::Meet],
        cut: None,
        unsynced: Unsynced::Kept,
        names: u64::MAX,
        then: Then::Nothing,
    };
    for (n, life) in history.iter().chain([&last]).enumerate() {
        world.live(&disk, &life.acts).map_err(|why| format!("opening {}: {why}", n + 1))?;
        // Nothing of the disk is lost by a kill.
        let (unsynced, names) =
            if life.cut.is_some() { (life.unsynced, life.names) } else { (Unsynced::Kept, u64::MAX) };
        let cut = history.get(n + 1).and_then(|life| life.cut);
        match (life.then, snapshot.take()) {
            (Then::Snapshot, _) => {
                let kept = disk.after_power_cut(unsynced, names, None);
                snapshot = Some((kept, world.owed.clone()));
            }
            (Then::Restore, Some((kept, owed))) => {
                // What only the other life had is lost with its disk.
                let arrived = world.owed.iter().filter(|(name, count)| world.whole(name, **count));
                world.owed = arrived.map(|(name, count)| (name.clone(), *count)).chain(owed).collect();
                world.restored = true;
                disk = kept.after_power_cut(Unsynced::Kept, u64::MAX, cut);
                continue;
            }
            (_, kept) => snapshot = kept,
        }
        disk = disk.after_power_cut(unsynced, names, cut);
    }
    for (name, count) in &world.owed {
        if !world.whole(name, *count) {
            return Err(format!("{name} was acknowledged and did not arrive whole"));
        }
    }
    Ok(world.got.len())
}

fn acts() -> impl Strategy<Value = Act> {
    let order = prop_oneof![3 => Just(Order::NewestFirst), 1 => Just(Order::OldestFirst)];
    let fate = prop_oneof![4 => Just(Fate::Settled), 1 => Just(Fate::Aborted), 1 => Just(Fate::Unheard)];
    prop_oneof![
        4 => (1..4_u32).prop_map(Act::Take),
        3 => Just(Act::Meet),
        3 => (1..7_u32, order, fate).prop_map(|(room, order, fate)| Act::Send(room, order, fate)),
        1 => Just(Act::Trim),
    ]
}

fn lives(restores: bool) -> impl Strategy<Value = Life> {
    let then = if restores {
        prop_oneof![4 => Just(Then::Nothing), 1 => Just(Then::Snapshot), 1 => Just(Then::Restore)].boxed()
    } else {
        Just(Then::Nothing).boxed()
    };
    let cut = prop_oneof![1 => Just(None), 2 => (1..70_usize).prop_map(Some)];
    let unsynced = proptest::sample::select(UNSYNCED.to_vec());
    let names = prop_oneof![Just(0), Just(u64::MAX), any::<u64>()];
    (proptest::collection::vec(acts(), 0..6), cut, unsynced, names, then)
        .prop_map(|(acts, cut, unsynced, names, then)| Life { acts, cut, unsynced, names, then })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(3000) })]

    #[test]
    fn no_history_of_openings_loses_or_doubles_an_alert_or_raises_a_false_alarm(
        history in proptest::collection::vec(lives(false), 1..8),
    ) {
        run(&history).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn no_snapshot_put_back_in_between_loses_or_doubles_what_the_others_had(
        history in proptest::collection::vec(lives(true), 2..9),
    ) {
        run(&history).map_err(TestCaseError::fail)?;
    }

    /// Two hosts on copies of one disk, both alive, each fencing the other whenever it meets the broker.
    #[test]
    fn no_copy_that_runs_beside_the_first_loses_or_doubles_an_alert(
        history in proptest::collection::vec((0..2_usize, deeds()), 4..40),
    ) {
        run_twins(&history).map_err(TestCaseError::fail)?;
    }
}

/// What one of two hosts does.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Act(Act),
    /// Its process ends and is started again.
    Restart,
    /// Its disk is put on the other host, whose own is gone.
    Copy,
}

fn deeds() -> impl Strategy<Value = Deed> {
    prop_oneof![8 => acts().prop_map(Deed::Act), 1 => Just(Deed::Restart), 1 => Just(Deed::Copy)]
}

/// A host with its disk, and what of the promises would be lost with it.
struct Host {
    disk: SimulatedDisk,
    spool: Option<Spool>,
    holds: BTreeMap<String, u32>,
}

impl Host {
    fn start(disk: SimulatedDisk, holds: BTreeMap<String, u32>) -> Self {
        let spool = Spool::open_on(Arc::new(disk.clone()), SpoolParameters { keep_sent_hours: 0.0 });
        Self { spool: Some(spool.unwrap()), disk, holds }
    }

    fn stop(mut self) -> (SimulatedDisk, BTreeMap<String, u32>) {
        drop(self.spool.take());
        (self.disk.after_power_cut(Unsynced::Kept, u64::MAX, None), self.holds)
    }
}

fn run_twins(history: &[(usize, Deed)]) -> Result<usize, String> {
    let mut world = World { restored: true, ..World::default() };
    let mut hosts: Vec<Option<Host>> = (0..2).map(|_| None).collect();
    hosts[0] = Some(Host::start(SimulatedDisk::new(None, Lies::default()), BTreeMap::new()));
    // Who met the broker last: the other's transactions fail.
    let mut unfenced = None;
    for (who, deed) in history {
        let Some(host) = hosts[*who].take() else { continue };
        hosts[*who] = Some(match deed {
            Deed::Restart => {
                unfenced = unfenced.filter(|last| last != who);
                let (disk, holds) = host.stop();
                Host::start(disk, holds)
            }
            Deed::Copy => {
                let (disk, holds) = (host.disk.after_power_cut(Unsynced::Kept, u64::MAX, None), host.holds.clone());
                hosts[1 - who] = Some(Host::start(disk, holds));
                unfenced = unfenced.filter(|last| last == who);
                host
            }
            Deed::Act(act) => world.act(host, *act, &mut unfenced, *who)?,
        });
    }
    for host in hosts.into_iter().flatten() {
        let spool = host.spool.as_ref().unwrap();
        spool.reconcile(&world.broker, 0);
        world.send(spool, 1000, Order::NewestFirst, Fate::Settled)?;
        for (name, count) in &host.holds {
            if !world.whole(name, *count) {
                return Err(format!("{name} was acknowledged and did not arrive whole"));
            }
        }
    }
    Ok(world.got.len())
}

impl World {
    fn act(&mut self, mut host: Host, act: Act, unfenced: &mut Option<usize>, who: usize) -> Result<Host, String> {
        let spool = host.spool.as_ref().unwrap();
        match act {
            Act::Take(count) => {
                self.take(spool, count)?;
                host.holds.insert(format!("e{}", self.taken), count);
            }
            Act::Meet => {
                spool.reconcile(&self.broker, 0);
                *unfenced = Some(who);
            }
            Act::Send(room, order, fate) if *unfenced == Some(who) => {
                if !self.send(spool, room, order, fate)? {
                    *unfenced = None;
                    let (disk, holds) = host.stop();
                    return Ok(Host::start(disk, holds));
                }
            }
            Act::Send(..) => {}
            Act::Trim => _ = spool.trim(10),
        }
        Ok(host)
    }
}

/// An opening notes that it begins at a number and dies; the next one gives that number and dies at
/// each step; a third sends it. Small enough to look at every step.
#[test]
fn a_number_that_was_announced_and_not_given_is_understood_whenever_its_giver_dies() {
    use Act::{Meet, Take};
    let kill = |acts: Vec<Act>| Life { acts, cut: None, unsynced: Unsynced::Kept, names: 0, then: Then::Nothing };
    let mut arrived = BTreeSet::new();
    for cut in 1..90 {
        for names in [0, u64::MAX] {
            let dies = Life {
                acts: vec![Take(2), Take(1), Take(1)],
                cut: Some(cut),
                unsynced: Unsynced::Lost,
                names,
                then: Then::Nothing,
            };
            let sends = Act::Send(3, Order::OldestFirst, Fate::Settled);
            let history = [kill(vec![Take(1), Meet]), kill(vec![Meet]), dies, kill(vec![Meet, sends, Take(1)])];
            arrived.insert(run(&history).unwrap_or_else(|why| panic!("cut at step {cut}: {why}")));
        }
    }
    // From none to all of those that the dying one took.
    assert_eq!(arrived.into_iter().collect::<Vec<_>>(), [2, 4, 5, 6]);
}

/// A snapshot is put back, and then a snapshot of that life: the broker's number 1 belongs to the
/// first life, and the second must not take it for its own.
#[test]
fn a_number_of_another_life_stays_its_own_over_two_snapshots() {
    use Act::{Meet, Take};
    let send = || Act::Send(1, Order::NewestFirst, Fate::Settled);
    let life = |acts: Vec<Act>, then| Life { acts, cut: None, unsynced: Unsynced::Kept, names: 0, then };
    let history = [
        life(vec![], Then::Snapshot),
        life(vec![Take(1)], Then::Nothing),
        life(vec![Meet, send()], Then::Restore),
        life(vec![Take(3)], Then::Snapshot),
        life(vec![Meet, Take(2), send()], Then::Restore),
    ];
    assert_eq!(run(&history), Ok(5));
}

fn spool_on(disk: &SimulatedDisk) -> Spool {
    Spool::open_on(Arc::new(disk.clone()), SpoolParameters::default()).unwrap()
}

fn take(spool: &Spool, name: &str) -> u64 {
    spool.append(&ExposureId::from_stored(name), &messages(name, 3)).unwrap().sequence
}

#[test]
fn the_loss_of_the_youngest_exposure_is_named_and_its_number_not_given_again() {
    let disk = SimulatedDisk::new(None, Lies::default());
    let spool = spool_on(&disk);
    assert_eq!([take(&spool, "e1"), take(&spool, "e2")], [1, 2]);
    drop(spool);
    disk.remove("ready/000000000002.seg").unwrap();
    let spool = spool_on(&disk);
    assert_eq!(spool.findings(), [Finding::Gap { first: 2, last: 2 }]);
    assert_eq!((spool.status().missing, take(&spool, "e3")), (1, 3));
}

/// The broker's copy of the cursor knows which numbers were given, though they were not sent yet.
#[test]
fn a_loss_that_only_the_broker_can_know_of_is_named_when_it_is_met() {
    let disk = SimulatedDisk::new(None, Lies::default());
    let spool = spool_on(&disk);
    (1..=2).for_each(|n| _ = take(&spool, &format!("e{n}")));
    let older = disk.after_power_cut(Unsynced::Kept, u64::MAX, None);
    (3..=5).for_each(|n| _ = take(&spool, &format!("e{n}")));
    let broker = spool.cursor_after(&[(1, 3)]);
    let spool = spool_on(&older);
    assert_eq!(spool.findings(), []);
    assert_eq!(spool.reconcile(&broker, 0), [Finding::Gap { first: 3, last: 5 }]);
    assert_eq!((spool.status().missing, take(&spool, "e6")), (3, 6));
    assert_eq!(spool.reconcile(&broker, 0), []);
}

/// Without a cursor, files set aside still tell which numbers were given: their own names must stay theirs.
#[test]
fn a_number_in_quarantine_or_among_the_dead_is_not_given_again() {
    let disk = SimulatedDisk::new(None, Lies::default());
    let spool = spool_on(&disk);
    (1..=2).for_each(|n| _ = take(&spool, &format!("e{n}")));
    drop(spool);
    disk.cut("ready/000000000002.seg", 10).unwrap();
    disk.remove("cursor").unwrap();
    assert!(matches!(spool_on(&disk).findings(), [Finding::Unreadable { .. }]));
    let spool = spool_on(&disk);
    assert_eq!(spool.findings(), [], "it is in quarantine and not missing");
    assert_eq!(take(&spool, "e3"), 3);
    spool.bury(Aside { sequence: 3, number: 1 }, &messages("e3", 3)[1], "too large").unwrap();
    drop(spool);
    for name in ["ready/000000000003.seg", "cursor"] {
        disk.remove(name).unwrap();
    }
    assert_eq!(take(&spool_on(&disk), "e4"), 4);
}
