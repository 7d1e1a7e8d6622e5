//! Figures for Prometheus: the text format (exposition format 0.0.4), and the small server that gives
//! it to whoever asks.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

/// Upper bounds of the histograms, seconds.
pub const BOUNDS: [f64; 12] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0];
/// How long a reader may take to ask and to listen.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often something took how long.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Histogram {
    counts: [u64; BOUNDS.len()],
    count: u64,
    sum: f64,
}

impl Histogram {
    /// It took so many seconds, `times` times over.
    pub fn add(&mut self, seconds: f64, times: u64) {
        for (count, _) in self.counts.iter_mut().zip(BOUNDS).filter(|(_, bound)| seconds <= *bound) {
            *count += times;
        }
        self.count += times;
        self.sum += seconds * times as f64;
    }

    /// How often it happened.
    pub fn count(&self) -> u64 {
        self.count
    }
}

/// The text that Prometheus reads.
#[derive(Debug, Default)]
pub struct Exposition(String);

impl Exposition {
    /// A figure that goes up and down.
    pub fn gauge(&mut self, name: &str, help: &str, value: f64) -> &mut Self {
        self.head(name, help, "gauge");
        let _ = writeln!(self.0, "nightjar_{name} {value}");
        self
    }

    /// A figure that only grows while the process lives.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) -> &mut Self {
        self.head(name, help, "counter");
        let _ = writeln!(self.0, "nightjar_{name} {value}");
        self
    }

    /// A state: 1 for the one of `states` that holds, 0 for the others.
    pub fn state(&mut self, name: &str, help: &str, states: &[&str], now: &str) -> &mut Self {
        self.head(name, help, "gauge");
        for state in states {
            let _ = writeln!(self.0, "nightjar_{name}{{state=\"{state}\"}} {}", u8::from(*state == now));
        }
        self
    }

    /// Histograms of one name, one for each value of `label`.
    pub fn histograms<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        all: impl IntoIterator<Item = (&'a str, &'a Histogram)>,
    ) -> &mut Self {
        self.head(name, help, "histogram");
        for (value, histogram) in all {
            for (count, bound) in histogram.counts.iter().zip(BOUNDS) {
                let _ = writeln!(self.0, "nightjar_{name}_bucket{{{label}=\"{value}\",le=\"{bound}\"}} {count}");
            }
            let _ = writeln!(self.0, "nightjar_{name}_bucket{{{label}=\"{value}\",le=\"+Inf\"}} {}", histogram.count);
            let _ = writeln!(self.0, "nightjar_{name}_sum{{{label}=\"{value}\"}} {}", histogram.sum);
            let _ = writeln!(self.0, "nightjar_{name}_count{{{label}=\"{value}\"}} {}", histogram.count);
        }
        self
    }

    /// The whole.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.0)
    }

    fn head(&mut self, name: &str, help: &str, kind: &str) {
        let _ = writeln!(self.0, "# HELP nightjar_{name} {help}\n# TYPE nightjar_{name} {kind}");
    }
}

/// Answers on `address`, on a thread of its own, with what `text` gives. One reader at a time, each for
/// a short time: a monitor needs no more, and a stranger gets no more.
///
/// # Errors
///
/// When the address cannot be listened on.
pub fn serve(address: &str, text: impl Fn() -> String + Send + 'static) -> std::io::Result<()> {
    let listener = TcpListener::bind(address)?;
    std::thread::Builder::new().name("metrics".into()).spawn(move || {
        for stream in listener.incoming().flatten() {
            // A reader that goes away in the middle is no trouble of ours.
            let _ = answer(stream, &text);
        }
    })?;
    Ok(())
}

fn answer(mut stream: TcpStream, text: &impl Fn() -> String) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = request(&mut stream)?;
    let line = String::from_utf8_lossy(&request);
    let path = line.split(' ').nth(1).unwrap_or("");
    let (status, body) = match (line.starts_with("GET "), path) {
        (true, "/metrics") => ("200 OK", text()),
        (true, _) => ("404 Not Found", "the figures are at /metrics\n".to_owned()),
        (false, _) => ("405 Method Not Allowed", "GET /metrics\n".to_owned()),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
}

/// What a reader asks, to the empty line that ends it: what is left unread would reset the connection.
fn request(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    const MOST: usize = 8192;
    let (mut request, mut piece) = (Vec::new(), [0; 1024]);
    while request.len() < MOST && !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut piece)? {
            0 => break,
            length => request.extend_from_slice(&piece[..length]),
        }
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_what_prometheus_reads() {
        let mut histogram = Histogram::default();
        histogram.add(0.2, 3);
        histogram.add(400.0, 1);
        let mut text = Exposition::default();
        text.counter("exposures_total", "Exposures that are done.", 3);
        text.state("uplink_state", "State of the uplink.", &["ok", "away"], "away");
        text.histograms("stage_seconds", "Seconds by stage.", "stage", [("read", &histogram)]);
        let text = text.finish();
        assert!(text.contains("# TYPE nightjar_exposures_total counter\nnightjar_exposures_total 3\n"), "{text}");
        assert!(text.contains("nightjar_uplink_state{state=\"ok\"} 0\nnightjar_uplink_state{state=\"away\"} 1\n"));
        assert!(text.contains("nightjar_stage_seconds_bucket{stage=\"read\",le=\"0.1\"} 0\n"));
        assert!(text.contains("nightjar_stage_seconds_bucket{stage=\"read\",le=\"0.25\"} 3\n"));
        assert!(text.contains("nightjar_stage_seconds_bucket{stage=\"read\",le=\"+Inf\"} 4\n"));
        assert!(text.contains("nightjar_stage_seconds_sum{stage=\"read\"} 400.6"));
    }
}
