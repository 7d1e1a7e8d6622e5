//! The line to a wired camera: a serial device, or `tcp://HOST:PORT` of a serial server. The one file
//! that opens it.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_serial::{SerialPort, SerialPortBuilderExt, SerialStream};

/// How long a serial server may take to take the connection.
const CONNECT: Duration = Duration::from_secs(5);
/// How long the line may refuse to take bytes.
const WRITE: Duration = Duration::from_secs(10);

/// Why the line cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// A serial device.
    #[error("{device}: {reason}; plug the camera in, check [camera] device, and let nightjar read it (group dialout)")]
    Device {
        /// The device.
        device: String,
        /// What the system said.
        reason: String,
    },
    /// A serial server.
    #[error("{address}: {reason}; switch the serial server on, or correct [camera] device")]
    Server {
        /// Its address.
        address: String,
        /// What the system said.
        reason: String,
    },
}

/// An open line.
#[derive(Debug)]
pub enum Port {
    /// A tty.
    Serial(SerialStream),
    /// A connection to a serial server.
    Tcp(TcpStream),
}

/// Whether `device` names a serial server; there a speed has no meaning.
pub fn is_server(device: &str) -> bool {
    device.starts_with("tcp://")
}

impl Port {
    /// Opens `device` at `baud`, 8 data bits, no parity, one stop bit, no flow control.
    ///
    /// # Errors
    ///
    /// When it is not there or not ours.
    pub async fn open(device: &str, baud: u32) -> Result<Self, PortError> {
        if let Some(address) = device.strip_prefix("tcp://") {
            let server = |reason: String| PortError::Server { address: address.to_owned(), reason };
            let connecting = tokio::time::timeout(CONNECT, TcpStream::connect(address));
            let stream = connecting.await.map_err(|_| server("nobody answers".into()))?;
            let stream = stream.map_err(|e| server(e.to_string()))?;
            stream.set_nodelay(true).map_err(|e| server(e.to_string()))?;
            return Ok(Self::Tcp(stream));
        }
        let opened = tokio_serial::new(device, baud).open_native_async();
        let stream = opened.map_err(|e| PortError::Device { device: device.to_owned(), reason: e.to_string() })?;
        Ok(Self::Serial(stream))
    }

    /// Changes the speed; a connection has none.
    ///
    /// # Errors
    ///
    /// When the device cannot.
    pub fn set_baud(&mut self, baud: u32) -> io::Result<()> {
        match self {
            Self::Serial(stream) => stream.set_baud_rate(baud).map_err(io::Error::from),
            Self::Tcp(_) => Ok(()),
        }
    }

    /// Waits until what was written is out.
    pub async fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Serial(stream) => stream.flush().await,
            Self::Tcp(stream) => stream.flush().await,
        }
    }

    /// Reads what there is, at least one byte; 0 at the end of the line.
    ///
    /// # Errors
    ///
    /// When the line is gone.
    pub async fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Serial(stream) => stream.read(bytes).await,
            Self::Tcp(stream) => stream.read(bytes).await,
        }
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    ///
    /// When the line is gone, or takes nothing for a while.
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let writing = async {
            match self {
                Self::Serial(stream) => stream.write_all(bytes).await,
                Self::Tcp(stream) => stream.write_all(bytes).await,
            }
        };
        let late = || io::Error::new(io::ErrorKind::TimedOut, "the line takes no bytes");
        tokio::time::timeout(WRITE, writing).await.map_err(|_| late())?
    }
}
