//! Starts exposures at their cadence, when the telescope is where it should be.
//!
//! Before each exposure the pointing command runs, on a thread of its own and with a deadline. A
//! closed roof or a mount that does not track means no exposure: said once, and no alarm. A command
//! that fails is an alarm, said once as well, and means no exposure either: nobody knows whether the
//! roof is open.

use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::Duration;

use super::status::Board;
use crate::camera::pointing::{Cadence, Pointing};
use crate::service::{command, events};

/// An exposure that was started.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// The camera's number of it.
    pub number: u32,
    /// Where the telescope said that it points.
    pub pointing: Option<Pointing>,
}

/// What is to be exposed; it may change while the night goes on.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Seconds from one start of exposure to the next.
    pub cadence_s: f64,
    /// Open-shutter time, seconds.
    pub exposure_s: f64,
    /// Command line that prints the pointing; empty for none.
    pub command: String,
}

/// The answer of the pointing command, once it is there.
type Answer = Receiver<Result<Pointing, String>>;

/// Starts exposures.
#[derive(Debug)]
pub struct Starter {
    cadence: Cadence,
    command: String,
    deadline: Duration,
    asked: Option<Answer>,
    /// Why there is no exposure, as it was said.
    waiting: String,
}

impl Starter {
    /// One exposure every `cadence_s` seconds, the first at once; `command` may be empty.
    pub fn new(cadence_s: f64, command: &str, now_s: f64) -> Self {
        Self {
            cadence: Cadence::new(cadence_s, now_s),
            command: command.to_owned(),
            deadline: deadline(cadence_s),
            asked: None,
            waiting: String::new(),
        }
    }

    /// Goes on by another plan.
    pub fn follow(&mut self, plan: &Plan, now_s: f64) {
        if plan.cadence_s != self.cadence.every_s() {
            self.cadence = Cadence::new(plan.cadence_s, now_s);
            self.deadline = deadline(plan.cadence_s);
        }
        if plan.command != self.command {
            self.command.clone_from(&plan.command);
        }
    }

    /// To be called often. Starts an exposure with `expose`, which gives its number, when one is due,
    /// the camera is `free` and nothing speaks against it.
    pub fn poll(
        &mut self,
        now_s: f64,
        free: bool,
        board: &Board,
        mut expose: impl FnMut() -> Option<u32>,
    ) -> Option<Order> {
        if let Some(asked) = &self.asked {
            let answer = match asked.try_recv() {
                Ok(answer) => answer,
                Err(TryRecvError::Empty) => return None,
                Err(TryRecvError::Disconnected) => Err("ended without an answer".into()),
            };
            self.asked = None;
            // Where the telescope points by the time the camera is free is asked then.
            return if free { self.take(answer, board, expose) } else { None };
        }
        self.count(self.cadence, now_s, board);
        self.cadence.due(now_s)?;
        if !free {
            return None;
        }
        if self.command.is_empty() {
            let number = expose()?;
            self.cadence.next();
            return Some(Order { number, pointing: None });
        }
        self.ask();
        None
    }

    /// Counts the exposures that were due without a camera.
    pub fn skip(&mut self, now_s: f64, board: &Board) {
        self.count(self.cadence, now_s, board);
        _ = self.cadence.due(now_s);
    }

    fn count(&self, mut cadence: Cadence, now_s: f64, board: &Board) {
        if let Some(past) = cadence.due(now_s).filter(|past| *past > 0) {
            board.set(|status| status.cadence_skipped += past);
        }
    }

    fn ask(&mut self) {
        let (send, receive) = sync_channel(1);
        let (line, deadline) = (self.command.clone(), self.deadline);
        let asking = std::thread::Builder::new().name("pointing".into()).spawn(move || {
            let answer = command::output(&line, deadline).map_err(|e| e.to_string());
            let _ = send.send(answer.and_then(|text| Pointing::parse(&text)));
        });
        // Without a thread the sender is gone, which is an answer as well.
        drop(asking);
        self.asked = Some(receive);
    }

    fn take(
        &mut self,
        answer: Result<Pointing, String>,
        board: &Board,
        mut expose: impl FnMut() -> Option<u32>,
    ) -> Option<Order> {
        let (reason, order) = match answer {
            Ok(pointing) => match pointing.reason_to_wait() {
                Some(reason) => (reason.to_owned(), None),
                None => {
                    // A camera that is not free yet is asked again at once.
                    let number = expose()?;
                    (String::new(), Some(Order { number, pointing: Some(pointing) }))
                }
            },
            Err(error) => (format!("the pointing command {error}"), None),
        };
        self.cadence.next();
        self.say(&reason, board);
        order
    }

    /// Each reason once, and once that it is over.
    fn say(&mut self, reason: &str, board: &Board) {
        if reason == self.waiting {
            return;
        }
        if reason.starts_with("the pointing command") {
            tracing::error!(message_id = events::NO_EXPOSURES, "no exposures: {reason}");
        } else if reason.is_empty() {
            tracing::info!("exposures go on");
        } else {
            tracing::info!(message_id = events::NO_EXPOSURES, "no exposures: {reason}");
        }
        self.waiting = reason.to_owned();
        board.set(|status| status.no_exposures = reason.to_owned());
    }
}

/// How long the pointing command may take.
fn deadline(cadence_s: f64) -> Duration {
    Duration::from_secs_f64((cadence_s / 2.0).clamp(0.05, 10.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Mjd;

    fn board() -> Board {
        Board::new(Mjd(60_000.0), "serial")
    }

    /// Polls until the command has answered.
    fn polled(starter: &mut Starter, now_s: f64, board: &Board) -> Option<Order> {
        let mut order = starter.poll(now_s, true, board, || Some(7));
        while starter.asked.is_some() {
            std::thread::sleep(Duration::from_millis(2));
            order = starter.poll(now_s, true, board, || Some(7));
        }
        order
    }

    #[test]
    fn an_exposure_is_started_when_the_telescope_is_ready_and_knows_where_it_points() {
        let (board, line) = (board(), r#"echo '{"ra": 10.5, "dec": 41, "roof": "open", "tracking": true}'"#);
        let mut starter = Starter::new(45.0, line, 0.0);
        let order = polled(&mut starter, 0.0, &board).unwrap();
        assert_eq!((order.number, order.pointing.unwrap().ra), (7, Some(10.5)));
        assert_eq!(polled(&mut starter, 44.0, &board), None, "none is due");
        assert!(polled(&mut starter, 45.0, &board).is_some());
    }

    #[test]
    fn a_closed_roof_means_no_exposure_and_is_said_as_long_as_it_holds() {
        let board = board();
        let mut starter = Starter::new(1.0, r#"echo '{"roof": "closed"}'"#, 0.0);
        assert_eq!(polled(&mut starter, 0.0, &board), None);
        assert_eq!(board.now().no_exposures, "the roof is closed");
        starter.command = r#"echo '{"roof": "open"}'"#.into();
        assert!(polled(&mut starter, 1.0, &board).is_some());
        assert_eq!(board.now().no_exposures, "");
    }

    #[test]
    fn a_pointing_command_that_hangs_or_fails_means_no_exposure() {
        for line in ["sleep 60", "false", "echo nonsense", "/nowhere/pointing"] {
            let board = board();
            let mut starter = Starter::new(0.2, line, 0.0);
            assert_eq!(polled(&mut starter, 0.0, &board), None, "{line}");
            assert!(board.now().no_exposures.starts_with("the pointing command "), "{}", board.now().no_exposures);
        }
    }

    #[test]
    fn exposures_that_a_busy_camera_could_not_take_are_counted() {
        let board = board();
        let mut starter = Starter::new(10.0, "", 0.0);
        assert_eq!(starter.poll(0.0, false, &board, || None), None);
        assert_eq!(starter.poll(35.0, true, &board, || Some(1)).map(|order| order.number), Some(1));
        assert_eq!(board.now().cadence_skipped, 3);
    }
}
