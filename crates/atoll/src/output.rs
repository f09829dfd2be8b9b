//! Non-blocking standard streams: the process must not wait for the readers of its output.
//!
//! A write to a pipe blocks for as long as nothing reads the pipe, and fails once its reader is gone.
//! So one thread for each stream writes, and all others append to its bounded queue.
//!
//! The crate `tracing-appender` has such a queue for logs, but reports nothing in the log about the
//! lines that it drops. If its queue is full at exit, it prints to the standard output, which may block
//! or panic in turn.

use std::{
    fs::File,
    io::{self, ErrorKind, Write},
    os::fd::AsFd,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

/// The capacity of a stream's queue in bytes, besides the batch that the writer writes. On overflow new
/// text is dropped and counted.
const CAPACITY: usize = 1024 * 1024;
/// How long the process waits at exit until the queues are written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// The pause before another attempt on a stream that its owner has set to non-blocking, and that is
/// full.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// The standard output. A server prints only the banner on it.
pub(crate) static STDOUT: Output = Output::new(|| io::stdout().as_fd().try_clone_to_owned().map(File::from));
/// The standard error: the log, errors and panics.
pub(crate) static STDERR: Output = Output::new(|| io::stderr().as_fd().try_clone_to_owned().map(File::from));

/// Lines that were dropped, on both streams together.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// The queue of one stream. Its writer thread starts with the first text.
pub(crate) struct Output {
    /// Opens the writer's own handle: the standard library's handle has a lock, which a blocked write
    /// would hold.
    open: fn() -> io::Result<File>,
    state: Mutex<State>,
    /// The queue has become longer, or a batch is written.
    changed: Condvar,
}

struct State {
    queue: Vec<u8>,
    has_writer: bool,
    /// Whether a batch is being written.
    writing: bool,
    /// Texts that did not fit since the log last reported them.
    dropped: u64,
}

impl Output {
    const fn new(open: fn() -> io::Result<File>) -> Self {
        let state = State { queue: Vec::new(), has_writer: false, writing: false, dropped: 0 };
        Self { open, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Queues whole lines. Never waits for the stream.
    pub(crate) fn append(&'static self, text: &[u8]) {
        let mut state = self.state.lock();
        if !state.has_writer {
            let writer = thread::Builder::new().name("output".to_owned()).spawn(|| self.write());
            // If the thread cannot start, the queue fills up and later text is dropped; the next text
            // tries again.
            state.has_writer = writer.is_ok();
        }
        if state.queue.len() + text.len() <= CAPACITY {
            state.queue.extend_from_slice(text);
            self.changed.notify_all();
        } else {
            state.dropped += 1;
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until all queued text is written, or until `deadline`.
    fn flush(&self, deadline: Instant) {
        let mut state = self.state.lock();
        while state.has_writer && (state.writing || !state.queue.is_empty()) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            self.changed.wait_for(&mut state, left);
        }
    }

    /// The writer thread.
    fn write(&'static self) {
        let stream = (self.open)();
        loop {
            let (batch, dropped) = self.next_batch();
            if dropped > 0 {
                // The warning is queued behind the batch, which has the last lines before the gap.
                tracing::warn!(lines = dropped, "log lines were dropped: the stream was not read in time");
            }
            let rest = match &stream {
                Ok(stream) => write_all(stream, &batch),
                Err(_) => &batch,
            };
            // A write that fails is not reported in the log: that would fail as well.
            let lost = rest.iter().filter(|&&byte| byte == b'\n').count();
            DROPPED.fetch_add(lost as u64, Ordering::Relaxed);
            self.state.lock().writing = false;
            self.changed.notify_all();
        }
    }

    /// Waits for text. Returns it with the number of texts that were dropped after it.
    fn next_batch(&self) -> (Vec<u8>, u64) {
        let mut state = self.state.lock();
        self.changed.wait_while(&mut state, |state| state.queue.is_empty());
        state.writing = true;
        (std::mem::take(&mut state.queue), std::mem::take(&mut state.dropped))
    }
}

/// Each write is one line of the log, or several.
impl Write for &'static Output {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.append(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes until the stream fails. Returns the part that was not written.
fn write_all<'a>(mut stream: &File, mut text: &'a [u8]) -> &'a [u8] {
    while !text.is_empty() {
        match stream.write(text) {
            Ok(0) => break,
            Ok(written) => text = &text[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(RETRY_INTERVAL),
            Err(_) => break,
        }
    }
    text
}

/// Waits until both streams are written, but at most a second, since possibly nothing reads them.
pub(crate) fn flush() {
    flush_within(FLUSH_TIMEOUT);
}

/// The same, for at most this long.
pub(crate) fn flush_within(limit: Duration) {
    let deadline = Instant::now() + limit;
    STDERR.flush(deadline);
    STDOUT.flush(deadline);
}

/// The number of lines that were dropped because the queue was full or the stream failed.
pub(crate) fn dropped_lines() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}
