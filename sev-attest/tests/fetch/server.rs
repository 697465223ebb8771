//! A web server on loopback that answers by a script, so that each way a service can fail happens.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// One answer.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// 200 with this body.
    Ok(Vec<u8>),
    /// A status with extra header lines and no body.
    Status(u16, Vec<String>),
    /// 200, a body that stops before its announced length.
    Truncated(Vec<u8>),
    /// 200, without a length, this many bytes.
    Endless(usize),
    /// Bytes that are no HTTP.
    Noise,
    /// Nothing at all for this long.
    Hang(Duration),
    /// 200 and a length, then a byte now and then.
    Drip(Duration),
}

impl Reply {
    pub(crate) fn status(code: u16) -> Self {
        Self::Status(code, Vec::new())
    }

    pub(crate) fn busy(retry_after: &str) -> Self {
        Self::Status(429, vec![format!("Retry-After: {retry_after}")])
    }
}

/// Serves until dropped.
pub(crate) struct Server {
    pub(crate) url: String,
    requests: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    address: std::net::SocketAddr,
}

impl Server {
    /// Answers the first requests by `script` and all later ones by `rest`, a function of the path.
    pub(crate) fn start(
        script: Vec<Reply>,
        rest: impl Fn(&str) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let script = Arc::new(Mutex::new(VecDeque::from(script)));
        let rest = Arc::new(rest);
        let (seen, ended) = (Arc::clone(&requests), Arc::clone(&stop));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::SeqCst) {
                    break;
                }
                let (seen, script, rest) =
                    (Arc::clone(&seen), Arc::clone(&script), Arc::clone(&rest));
                let stream = stream.unwrap();
                std::thread::spawn(move || {
                    if let Some(path) = read_request(&stream) {
                        seen.lock().unwrap().push(path.clone());
                        let reply = script.lock().unwrap().pop_front();
                        answer(&stream, &reply.unwrap_or_else(|| rest(&path)));
                    }
                });
            }
        });
        Self {
            url: format!("http://{address}"),
            requests,
            stop,
            address,
        }
    }

    /// The paths asked for so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // wakes the listener
        let _ = TcpStream::connect(self.address);
    }
}

fn read_request(stream: &TcpStream) -> Option<String> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    for line in lines {
        if line.ok()?.is_empty() {
            break;
        }
    }
    Some(first.split(' ').nth(1)?.to_owned())
}

fn answer(mut stream: &TcpStream, reply: &Reply) {
    let head = |status: u16, headers: &str| {
        format!("HTTP/1.1 {status} Scripted\r\nConnection: close\r\n{headers}\r\n").into_bytes()
    };
    let sized = |length: usize| head(200, &format!("Content-Length: {length}\r\n"));
    // the client may have hung up: that is its right
    let _ = match reply {
        Reply::Ok(body) => stream.write_all(&[sized(body.len()), body.clone()].concat()),
        Reply::Status(code, headers) => {
            let lines: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
            stream.write_all(&head(*code, &format!("{lines}Content-Length: 0\r\n")))
        }
        Reply::Truncated(body) => {
            stream.write_all(&[sized(body.len()), body[..body.len() / 2].to_vec()].concat())
        }
        Reply::Endless(length) => stream.write_all(&head(200, "")).and_then(|()| {
            let chunk = vec![0x30; 64 << 10];
            (0..length.div_ceil(chunk.len())).try_for_each(|_| stream.write_all(&chunk))
        }),
        Reply::Noise => stream.write_all(b"\x16\x03\x01\x00 this is no HTTP\r\n\r\n"),
        Reply::Hang(time) => {
            std::thread::sleep(*time);
            Ok(())
        }
        Reply::Drip(time) => stream.write_all(&sized(1000)).and_then(|()| {
            let step = Duration::from_millis(50);
            (0..time.as_millis() / step.as_millis()).try_for_each(|_| {
                std::thread::sleep(step);
                stream.write_all(b"x")
            })
        }),
    };
    let _ = stream.shutdown(Shutdown::Both);
}
