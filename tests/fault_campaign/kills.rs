//! The whole way killed: a sender with spool and uplink, in the middle of its transactions, the
//! broker being killed and started again besides.

use crate::kafka::Kafka;
use crate::oracle::Oracle;
use crate::row::{Chance, Row, runs};
use crate::sender::{BYTES, COUNT, Job, Sender};

#[test]
fn a_sender_killed_in_mid_transaction_and_a_broker_killed_besides() {
    let Some(mut kafka) = Kafka::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut job = Job::new(&folder.path().join("spool"), &kafka.bootstrap(), "");
    job.every_ms = 30;
    let mut oracle = Oracle::start(&kafka.bootstrap(), COUNT, BYTES);
    let (mut row, mut chance) = (Row::default(), Chance(0x1357_9bdf_0246_8ace));
    let mut rounds = 0;
    for round in runs(8, 500) {
        rounds = round + 1;
        job.name = format!("k{round}");
        let mut sender = Sender::start(&job);
        std::thread::sleep(chance.ms(100, 2000));
        oracle.owe(&sender.kill());
        if round % 25 == 5 {
            kafka.restart();
        }
    }
    job.name = "last".into();
    let mut sender = Sender::start(&job);
    assert!(sender.wait(60.0, |s| s.sessions() > 0 && !s.acknowledged().is_empty()), "{:?}", sender.troubles());
    assert!(sender.finish(), "{:?}", sender.troubles());
    oracle.owe(&sender.names());
    oracle.check(180.0, &mut row);
    row.runs = rounds;
    row.assert_clean("SIGKILL of the sender in mid-transaction, the broker killed besides");
}
