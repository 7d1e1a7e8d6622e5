//! The line of the simulated camera: a connection or a pseudo-terminal, read and written by threads of
//! their own, so that a host that does not read cannot stop the camera.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use nix::pty::openpty;
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};

/// Packets that may wait to be written.
const ROOM: usize = 32;

/// A line that carries bytes.
pub struct Line {
    input: Receiver<Vec<u8>>,
    output: Option<SyncSender<Vec<u8>>>,
    full: Option<Vec<u8>>,
    writer: Option<std::thread::JoinHandle<()>>,
    /// Closes a connection when the line goes, whoever waits on it.
    connection: Option<TcpStream>,
}

impl Line {
    /// A connection.
    pub fn of_connection(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let connection = stream.try_clone()?;
        let mut line = Self::new(stream.try_clone()?, stream)?;
        line.connection = Some(connection);
        Ok(line)
    }

    fn new(mut reader: impl Read + Send + 'static, mut writer: impl Write + Send + 'static) -> io::Result<Self> {
        let (give, input) = sync_channel(ROOM);
        let (output, take) = sync_channel::<Vec<u8>>(ROOM);
        std::thread::Builder::new().name("line-in".into()).spawn(move || {
            let mut bytes = vec![0; 64 << 10];
            loop {
                let read = reader.read(&mut bytes).unwrap_or(0);
                // Nothing read is the end of the line, and is told.
                if give.send(bytes[..read].to_vec()).is_err() || read == 0 {
                    break;
                }
            }
        })?;
        let writer = std::thread::Builder::new().name("line-out".into()).spawn(move || {
            while let Ok(bytes) = take.recv() {
                if writer.write_all(&bytes).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { input, output: Some(output), full: None, writer: Some(writer), connection: None })
    }

    /// The next bytes, none of them at the end of the line; `None` when nothing came in time.
    pub fn receive(&self, wait: Duration) -> Option<Vec<u8>> {
        match self.input.recv_timeout(wait) {
            Ok(bytes) => Some(bytes),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Vec::new()),
        }
    }

    /// Whether [`Line::send`] takes something.
    pub fn has_room(&mut self) -> bool {
        match self.full.take() {
            Some(bytes) => self.send(bytes) && self.full.is_none(),
            None => true,
        }
    }

    /// Hands bytes to the line; `false` when it is gone.
    pub fn send(&mut self, bytes: Vec<u8>) -> bool {
        match self.output.as_ref().map(|output| output.try_send(bytes)) {
            Some(Ok(())) => true,
            Some(Err(TrySendError::Full(bytes))) => {
                self.full = Some(bytes);
                true
            }
            Some(Err(TrySendError::Disconnected(_))) | None => false,
        }
    }

    /// Waits until everything is written.
    pub fn finish(mut self) {
        self.output = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(connection) = &self.connection {
            // One that is closed already needs nothing.
            let _ = connection.shutdown(std::net::Shutdown::Both);
        }
    }
}

/// A pseudo-terminal with a link to it, which goes when this does.
pub struct PseudoTerminal {
    master: OwnedFd,
    /// Kept open, as a real line is: a host that goes away is not noticed.
    _slave: OwnedFd,
    link: PathBuf,
}

impl PseudoTerminal {
    /// Makes one in raw mode, and the link `path` to its other end. An old link is replaced.
    pub fn open(path: &Path) -> io::Result<Self> {
        let pair = openpty(None, None)?;
        let mut mode = tcgetattr(pair.slave.as_fd())?;
        cfmakeraw(&mut mode);
        tcsetattr(pair.slave.as_fd(), SetArg::TCSANOW, &mode)?;
        let name = nix::unistd::ttyname(pair.slave.as_fd())?;
        if path.is_symlink() {
            std::fs::remove_file(path)?;
        }
        std::os::unix::fs::symlink(name, path)?;
        Ok(Self { master: pair.master, _slave: pair.slave, link: path.to_owned() })
    }

    /// The camera's end.
    pub fn line(&self) -> io::Result<Line> {
        let (reader, writer) = (self.master.try_clone()?, self.master.try_clone()?);
        Line::new(File::from(reader), File::from(writer))
    }
}

impl Drop for PseudoTerminal {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.link);
    }
}
