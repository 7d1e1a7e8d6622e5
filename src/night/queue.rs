//! Frames that wait for the pipeline: their names in memory, their pixels on disk.
//!
//! The camera's side never waits here. When processing cannot keep up, the queue grows by some
//! hundred bytes a frame and the frames themselves lie in the frame journal.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A queue between the camera's thread and the pipeline's.
#[derive(Debug)]
pub struct FrameQueue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<T>,
    closed: bool,
}

/// What the queue had to give.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<T> {
    /// The frame that waits longest.
    Frame(T),
    /// None yet.
    Nothing,
    /// None, and there will be no more.
    End,
}

impl<T> Default for FrameQueue<T> {
    fn default() -> Self {
        Self { state: Mutex::new(State { waiting: VecDeque::new(), closed: false }), changed: Condvar::new() }
    }
}

impl<T> FrameQueue<T> {
    /// Adds a frame at the end.
    pub fn push(&self, frame: T) {
        self.state().waiting.push_back(frame);
        self.changed.notify_all();
    }

    /// Puts a frame back that could not be processed yet: it is the next one again.
    pub fn put_back(&self, frame: T) {
        self.state().waiting.push_front(frame);
        self.changed.notify_all();
    }

    /// No more frames will come.
    pub fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }

    /// The next frame, waiting for it at most `time`.
    pub fn next(&self, time: Duration) -> Next<T> {
        let idle = |state: &mut State<T>| state.waiting.is_empty() && !state.closed;
        let waited = self.changed.wait_timeout_while(self.state(), time, idle);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match state.waiting.pop_front() {
            Some(frame) => Next::Frame(frame),
            None if state.closed => Next::End,
            None => Next::Nothing,
        }
    }

    /// Frames that wait.
    pub fn len(&self) -> usize {
        self.state().waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        // A queue is whole whatever a thread died of.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_as_they_went_in_and_the_end_after_the_last() {
        let queue = FrameQueue::default();
        assert_eq!(queue.next(Duration::ZERO), Next::Nothing);
        queue.push(1);
        queue.push(2);
        queue.close();
        assert_eq!(queue.next(Duration::from_secs(60)), Next::Frame(1));
        queue.put_back(1);
        assert_eq!((queue.next(Duration::ZERO), queue.next(Duration::ZERO)), (Next::Frame(1), Next::Frame(2)));
        assert_eq!(queue.next(Duration::from_secs(60)), Next::End);
    }
}
