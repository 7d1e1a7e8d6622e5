//! A proxy that knows Kafka's framing: it loses, delays and repeats single requests and replies of
//! the kind that it is told to.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Requests that matter to delivery (numbers of the Kafka protocol guide).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    Produce,
    InitProducerId,
    AddPartitionsToTxn,
    EndTxn,
}

impl Request {
    pub const ALL: [Self; 4] = [Self::EndTxn, Self::Produce, Self::InitProducerId, Self::AddPartitionsToTxn];

    fn key(self) -> i16 {
        match self {
            Self::Produce => 0,
            Self::InitProducerId => 22,
            Self::AddPartitionsToTxn => 24,
            Self::EndTxn => 26,
        }
    }
}

/// What becomes of the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The broker does it, the reply is lost with the connection.
    ReplyLost,
    /// The broker does it, the reply comes late.
    ReplyLate(Duration),
    /// The reply comes twice.
    ReplyTwice,
    /// The request is lost with the connection.
    RequestLost,
    /// The request waits somewhere and comes late, its connection being gone.
    RequestLate(Duration),
    /// The request is done, its reply is lost with the connection, and it comes once more, late: with the client's
    /// own repetition that makes three.
    RequestTwice(Duration),
    /// The request comes once more on another connection, and the client notices nothing. No TCP does that.
    RequestCopied(Duration),
    /// The request is held back, and then goes on as if nothing had been.
    RequestHeld(Duration),
}

#[derive(Default)]
struct Plan {
    next: Option<(Request, Fate)>,
    struck: u64,
}

/// The proxy; its threads end with the process.
#[derive(Clone)]
pub struct Proxy {
    plan: Arc<Mutex<Plan>>,
}

fn frame(from: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length).ok()?;
    let mut bytes = length.to_vec();
    bytes.resize(4 + u32::from_be_bytes(length) as usize, 0);
    from.read_exact(&mut bytes[4..]).ok()?;
    Some(bytes)
}

/// Sends a request on a connection of its own and hears the reply.
fn later(broker: u16, request: Vec<u8>, after: Duration) {
    std::thread::spawn(move || {
        std::thread::sleep(after);
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", broker))
            && stream.write_all(&request).is_ok()
        {
            let _ = frame(&mut stream);
        }
    });
}

impl Proxy {
    /// Listens on `port` for the broker that listens on `broker`.
    pub fn start(port: u16, broker: u16) -> Self {
        let proxy = Self { plan: Arc::default() };
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let plan = proxy.plan.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if let Ok(server) = TcpStream::connect(("127.0.0.1", broker)) {
                    let _ = client.set_nodelay(true);
                    let _ = server.set_nodelay(true);
                    join(client, server, broker, plan.clone());
                }
            }
        });
        proxy
    }

    /// The next request of this kind meets this fate.
    pub fn plan(&self, request: Request, fate: Fate) {
        self.plan.lock().unwrap().next = Some((request, fate));
    }

    /// How many met their fate.
    pub fn struck(&self) -> u64 {
        self.plan.lock().unwrap().struck
    }
}

fn join(client: TcpStream, server: TcpStream, broker: u16, plan: Arc<Mutex<Plan>>) {
    // What the replies meet, by correlation number.
    let fates: Arc<Mutex<HashMap<[u8; 4], Fate>>> = Arc::default();
    let (mut from_client, mut to_client) = (client.try_clone().unwrap(), client);
    let (mut from_server, mut to_server) = (server.try_clone().unwrap(), server);
    let theirs = fates.clone();
    std::thread::spawn(move || {
        while let Some(request) = frame(&mut from_client) {
            let Some(head) = request.get(4..12) else { break };
            let (key, correlation) = (i16::from_be_bytes([head[0], head[1]]), [head[4], head[5], head[6], head[7]]);
            let fate = {
                let mut plan = plan.lock().unwrap();
                let fate = plan.next.filter(|(wanted, _)| wanted.key() == key).map(|(_, fate)| fate);
                if fate.is_some() {
                    (plan.next, plan.struck) = (None, plan.struck + 1);
                }
                fate
            };
            match fate {
                Some(Fate::RequestLost) => break,
                Some(Fate::RequestLate(after)) => {
                    later(broker, request, after);
                    break;
                }
                Some(Fate::RequestCopied(after)) => later(broker, request.clone(), after),
                Some(Fate::RequestTwice(after)) => {
                    later(broker, request.clone(), after);
                    theirs.lock().unwrap().insert(correlation, Fate::ReplyLost);
                }
                Some(Fate::RequestHeld(time)) => std::thread::sleep(time),
                Some(fate) => _ = theirs.lock().unwrap().insert(correlation, fate),
                None => {}
            }
            if to_server.write_all(&request).is_err() {
                break;
            }
        }
        let _ = to_server.shutdown(Shutdown::Both);
        let _ = from_client.shutdown(Shutdown::Both);
    });
    std::thread::spawn(move || {
        while let Some(reply) = frame(&mut from_server) {
            let fate = reply.get(4..8).and_then(|c| fates.lock().unwrap().remove(c));
            let times = match fate {
                Some(Fate::ReplyLost) => break,
                Some(Fate::ReplyLate(time)) => {
                    std::thread::sleep(time);
                    1
                }
                Some(Fate::ReplyTwice) => 2,
                _ => 1,
            };
            if (0..times).any(|_| to_client.write_all(&reply).is_err()) {
                break;
            }
        }
        let _ = to_client.shutdown(Shutdown::Both);
        let _ = from_server.shutdown(Shutdown::Both);
    });
}
