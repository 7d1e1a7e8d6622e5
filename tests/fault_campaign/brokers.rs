//! Three real brokers, of which any may hang, die, or hand over its leadership.

use std::time::Duration;

use crate::cluster::Cluster;
use crate::oracle::Oracle;
use crate::row::{Chance, Row, runs};
use crate::sender::{BYTES, COUNT, Job, Sender};

#[derive(Debug, Clone, Copy)]
enum Fault {
    Frozen,
    Killed,
    TwoFrozen,
    TwoKilled,
    LeadersMove,
    Rolling,
}

const FAULTS: [Fault; 6] =
    [Fault::Frozen, Fault::Killed, Fault::LeadersMove, Fault::TwoFrozen, Fault::TwoKilled, Fault::Rolling];

impl Fault {
    fn strike(self, cluster: &mut Cluster, chance: &mut Chance) {
        let one = chance.below(3) as usize;
        let other = (one + 1 + chance.below(2) as usize) % 3;
        match self {
            Self::Frozen => {
                cluster.freeze(one);
                std::thread::sleep(chance.ms(300, 5000));
                cluster.thaw(one);
            }
            Self::TwoFrozen => {
                cluster.freeze(one);
                cluster.freeze(other);
                std::thread::sleep(chance.ms(300, 4000));
                cluster.thaw(one);
                cluster.thaw(other);
            }
            Self::Killed => {
                cluster.kill(one);
                std::thread::sleep(chance.ms(0, 3000));
                cluster.start_again(one);
            }
            Self::TwoKilled => {
                cluster.kill(one);
                cluster.kill(other);
                std::thread::sleep(chance.ms(0, 2000));
                cluster.start_again(one);
                cluster.start_again(other);
            }
            // A broker that is asked to stop hands its partitions over first; afterwards it gets
            // back those that it is preferred for.
            Self::LeadersMove => {
                cluster.ask_to_stop(one);
                std::thread::sleep(chance.ms(0, 1000));
                cluster.start_again(one);
            }
            Self::Rolling => {
                for n in 0..3 {
                    cluster.ask_to_stop(n);
                    cluster.start_again(n);
                    cluster.wait_until_in_sync();
                }
            }
        }
    }
}

#[test]
fn three_brokers_that_hang_die_and_hand_over() {
    let title = "three brokers: SIGSTOP, SIGKILL, two of three down, leaders move, rolling restart";
    let Some(mut cluster) = Cluster::start(3) else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut job = Job::new(&folder.path().join("spool"), &cluster.bootstrap(), "b");
    job.replication = 3;
    let mut sender = Sender::start(&job);
    let mut oracle = Oracle::start(&cluster.bootstrap(), COUNT, BYTES);
    let (mut row, mut chance) = (Row::default(), Chance(0x0dd0_5eed_1234_9876));
    assert!(sender.wait(90.0, |s| s.sessions() > 0), "{:?}", sender.troubles());
    for run in runs(FAULTS.len() as u32, 300) {
        std::thread::sleep(chance.ms(100, 1500));
        FAULTS[run as usize % FAULTS.len()].strike(&mut cluster, &mut chance);
        oracle.owe(&sender.names());
        oracle.check(180.0, &mut row);
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(sender.finish(), "{:?}", sender.troubles());
    oracle.owe(&sender.names());
    oracle.check(90.0, &mut row);
    row.runs -= 1;
    row.assert_clean(title);
}
