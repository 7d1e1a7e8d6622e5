//! Two frames in work at a time: while one is subtracted, the next is read and calibrated.
//!
//! The two halves meet at a channel without room, so that at most one prepared frame waits,
//! whatever the speed of either half.

use std::ops::ControlFlow;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use super::queue::{FrameQueue, Next};
use crate::service::Shutdown;

/// How often the first half looks whether it is to stop, while nothing waits.
const LOOK: Duration = Duration::from_millis(200);

/// Takes frames from the queue, `prepare`s each on a thread of its own and `finish`es it here, in
/// their order, until the queue ends, `finish` breaks off, or somebody asks to stop. A frame that
/// is prepared and not finished is dropped: the frame journal has it.
pub fn run<T: Send, P: Send>(
    queue: &FrameQueue<T>,
    shutdown: &Shutdown,
    prepare: impl Fn(T) -> P + Send,
    mut finish: impl FnMut(P) -> ControlFlow<()>,
) {
    let (give, take) = sync_channel(0);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while !shutdown.is_requested() {
                match queue.next(LOOK) {
                    Next::Frame(frame) => {
                        if give.send(prepare(frame)).is_err() {
                            break;
                        }
                    }
                    Next::Nothing => {}
                    Next::End => break,
                }
            }
        });
        while let Ok(prepared) = take.recv() {
            if shutdown.is_requested() || finish(prepared).is_break() {
                break;
            }
        }
        // The first half may be waiting to hand over: now it cannot.
        drop(take);
    });
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn queue(count: u32) -> FrameQueue<u32> {
        let queue = FrameQueue::default();
        (0..count).for_each(|frame| queue.push(frame));
        queue.close();
        queue
    }

    #[test]
    fn every_frame_is_finished_in_its_order_and_at_most_two_are_in_work() {
        let in_work = AtomicUsize::new(0);
        let mut finished = Vec::new();
        let prepare = |frame| {
            in_work.fetch_add(1, Ordering::SeqCst);
            frame
        };
        run(&queue(50), &Shutdown::new(), prepare, |frame| {
            // The one here, the one that is handed over, and the one being prepared.
            assert!(in_work.load(Ordering::SeqCst) <= 3);
            finished.push(frame);
            in_work.fetch_sub(1, Ordering::SeqCst);
            ControlFlow::Continue(())
        });
        assert_eq!(finished, (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn a_request_to_stop_lets_the_frame_in_hand_end_and_takes_no_other() {
        let (queue, shutdown) = (queue(50), Shutdown::new());
        let mut finished = Vec::new();
        run(
            &queue,
            &shutdown,
            |frame| frame,
            |frame| {
                if frame == 3 {
                    shutdown.request();
                }
                finished.push(frame);
                ControlFlow::Continue(())
            },
        );
        assert_eq!(finished, [0, 1, 2, 3]);
    }

    #[test]
    fn breaking_off_ends_the_run() {
        let mut finished = 0;
        run(
            &queue(50),
            &Shutdown::new(),
            |frame| frame,
            |_| {
                finished += 1;
                ControlFlow::Break(())
            },
        );
        assert_eq!(finished, 1);
    }
}
