//! Whether the guest's SSH server answers: asked for as long as the guest runs.

use std::{
    net::{Ipv6Addr, SocketAddrV6},
    time::Duration,
};

use time::OffsetDateTime;
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

/// The port of SSH.
const SSH: u16 = 22;

/// How often, and how patiently.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// For one attempt: connection and the beginning of the banner.
    attempt: Duration,
    /// Between attempts while a guest boots, and for how long that is.
    eager: (Duration, Duration),
    /// Between attempts after that: it may have no SSH server.
    patient: Duration,
    /// Between attempts once it has answered, a quarter more or less: hundreds of guests
    /// that were started at once are not asked at once.
    calm: Duration,
    /// Between the attempts that are made when one has failed, and how many fail before
    /// that is told.
    doubtful: (Duration, u32),
    /// A guest that has answered before may take so long to boot again.
    reboot: Duration,
}

/// What guests are asked at.
pub(super) const PACE: Pace = Pace {
    attempt: Duration::from_secs(3),
    eager: (Duration::from_millis(500), Duration::from_secs(180)),
    patient: Duration::from_secs(15),
    calm: Duration::from_secs(60),
    doubtful: (Duration::from_secs(5), 3),
    reboot: Duration::from_secs(300),
};

/// What is told of a guest, each time that it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// The server answers.
    Answers,
    /// It answered before, and does not any more.
    Silent {
        /// Since when.
        since: OffsetDateTime,
    },
}

/// Where a guest's SSH server listens.
pub(super) fn ssh(address: Ipv6Addr) -> SocketAddrV6 {
    SocketAddrV6::new(address, SSH, 0, 0)
}

/// What is known of a guest before it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    /// It has not answered: it boots, perhaps.
    Boots,
    /// It had answered and boots again: if it does not come back it is silent since then.
    Reboots {
        /// When it began to.
        since: OffsetDateTime,
    },
    /// It has answered, and may not any more.
    Answered,
    /// It does not answer any more, and that was told.
    Silent,
}

/// Asks the server for ever.
pub(super) async fn watch(
    server: SocketAddrV6,
    pace: Pace,
    before: Before,
    mut tell: impl FnMut(Seen),
) {
    match before {
        Before::Answered => {}
        Before::Boots => until_answered(server, pace, pace.eager.1).await,
        Before::Silent => until_answered(server, pace, Duration::ZERO).await,
        Before::Reboots { since } => {
            let mut answered = std::pin::pin!(until_answered(server, pace, pace.eager.1));
            if timeout(pace.reboot, answered.as_mut()).await.is_err() {
                tell(Seen::Silent { since });
                answered.await;
            }
        }
    }
    let mut at_once = before == Before::Answered;
    if !at_once {
        tell(Seen::Answers);
    }
    loop {
        if !std::mem::take(&mut at_once) {
            sleep(jittered(pace.calm)).await;
        }
        let asked = OffsetDateTime::now_utc();
        if answers_at_last(server, pace).await {
            continue;
        }
        tell(Seen::Silent { since: asked });
        until_answered(server, pace, Duration::ZERO).await;
        tell(Seen::Answers);
    }
}

async fn until_answered(server: SocketAddrV6, pace: Pace, eager_for: Duration) {
    let began = Instant::now();
    while !answers(server, pace).await {
        let eager = began.elapsed() < eager_for;
        sleep(if eager { pace.eager.0 } else { pace.patient }).await;
    }
}

/// Several attempts: one is lost easily.
async fn answers_at_last(server: SocketAddrV6, pace: Pace) -> bool {
    let (pause, attempts) = pace.doubtful;
    for attempt in 0..attempts {
        if attempt > 0 {
            sleep(pause).await;
        }
        if answers(server, pace).await {
            return true;
        }
    }
    false
}

/// Whether the server sends an SSH banner (RFC 4253, 4.2).
async fn answers(server: SocketAddrV6, pace: Pace) -> bool {
    let banner = async {
        let mut stream = TcpStream::connect(server).await?;
        let mut start = [0; 4];
        stream.read_exact(&mut start).await?;
        Ok::<_, std::io::Error>(start == *b"SSH-")
    };
    matches!(timeout(pace.attempt, banner).await, Ok(Ok(true)))
}

fn jittered(pause: Duration) -> Duration {
    let mut random = [0];
    // Without randomness all are asked at once: slower, and still right.
    let _ = getrandom::fill(&mut random);
    pause * 3 / 4 + pause / 2 * u32::from(random[0]) / 255
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    };

    use tokio::{io::AsyncWriteExt, net::TcpListener, sync::mpsc};

    use super::*;

    const FAST: Pace = Pace {
        attempt: Duration::from_millis(200),
        eager: (Duration::from_millis(5), Duration::from_secs(5)),
        patient: Duration::from_millis(10),
        calm: Duration::from_millis(20),
        doubtful: (Duration::from_millis(10), 3),
        reboot: Duration::from_millis(300),
    };

    /// A server that answers, hangs after the connection, or ends it without a word.
    struct Server {
        address: SocketAddrV6,
        manners: Arc<AtomicU8>,
        asked: Arc<AtomicUsize>,
    }

    const ANSWERS: u8 = 0;
    const HANGS: u8 = 1;
    const ENDS: u8 = 2;

    impl Server {
        async fn new(manners: u8) -> Self {
            let listener = TcpListener::bind("[::1]:0").await.unwrap();
            let std::net::SocketAddr::V6(address) = listener.local_addr().unwrap() else {
                panic!("not IPv6")
            };
            let manners = Arc::new(AtomicU8::new(manners));
            let asked = Arc::new(AtomicUsize::new(0));
            let (is, count) = (manners.clone(), asked.clone());
            tokio::spawn(async move {
                let mut hanging = Vec::new();
                while let Ok((mut stream, _)) = listener.accept().await {
                    count.fetch_add(1, Ordering::Relaxed);
                    match is.load(Ordering::Relaxed) {
                        ANSWERS => drop(stream.write_all(b"SSH-2.0-x\r\n").await),
                        HANGS => hanging.push(stream),
                        _ => {}
                    }
                }
            });
            Self {
                address,
                manners,
                asked,
            }
        }

        fn be(&self, manners: u8) {
            self.manners.store(manners, Ordering::Relaxed);
        }

        fn watched(&self, before: Before) -> mpsc::UnboundedReceiver<Seen> {
            let (tell, told) = mpsc::unbounded_channel();
            let work = watch(self.address, FAST, before, move |seen| {
                let _ = tell.send(seen);
            });
            tokio::spawn(work);
            told
        }
    }

    async fn next(told: &mut mpsc::UnboundedReceiver<Seen>) -> Seen {
        let next = timeout(Duration::from_secs(20), told.recv()).await;
        next.expect("something is told").unwrap()
    }

    #[tokio::test]
    async fn a_server_is_asked_again_after_it_answered() {
        let server = Server::new(ENDS).await;
        let mut told = server.watched(Before::Boots);
        while server.asked.load(Ordering::Relaxed) < 3 {
            sleep(Duration::from_millis(1)).await;
        }
        assert!(told.try_recv().is_err(), "it has never answered");
        server.be(ANSWERS);
        assert_eq!(next(&mut told).await, Seen::Answers);
        for manners in [HANGS, ENDS] {
            let before = OffsetDateTime::now_utc();
            server.be(manners);
            let Seen::Silent { since } = next(&mut told).await else {
                panic!("it does not answer")
            };
            assert!(
                since >= before - Duration::from_millis(500),
                "{since} {before}"
            );
            server.be(ANSWERS);
            assert_eq!(next(&mut told).await, Seen::Answers);
        }
        // While it goes on answering nothing is told, though it is asked.
        let asked = server.asked.load(Ordering::Relaxed);
        while server.asked.load(Ordering::Relaxed) < asked + 3 {
            sleep(Duration::from_millis(1)).await;
        }
        assert!(told.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_guest_that_does_not_come_back_from_a_reboot_is_silent_since_then() {
        let server = Server::new(ENDS).await;
        let since = OffsetDateTime::now_utc() - Duration::from_secs(7);
        let mut told = server.watched(Before::Reboots { since });
        assert_eq!(next(&mut told).await, Seen::Silent { since });
        server.be(ANSWERS);
        assert_eq!(next(&mut told).await, Seen::Answers);
        // One that does is not.
        let mut told = server.watched(Before::Reboots { since });
        assert_eq!(next(&mut told).await, Seen::Answers);
    }

    #[tokio::test]
    async fn a_later_agent_goes_on_from_what_was_seen() {
        let server = Server::new(ENDS).await;
        let before = OffsetDateTime::now_utc();
        let mut told = server.watched(Before::Answered);
        let Seen::Silent { since } = next(&mut told).await else {
            panic!("it does not answer")
        };
        assert!(since >= before, "{since} {before}");
        server.be(ANSWERS);
        assert_eq!(next(&mut told).await, Seen::Answers);
        // What is known is not told again.
        let mut told = server.watched(Before::Answered);
        let asked = server.asked.load(Ordering::Relaxed);
        while server.asked.load(Ordering::Relaxed) < asked + 6 {
            sleep(Duration::from_millis(1)).await;
        }
        assert!(told.try_recv().is_err());
        server.be(ENDS);
        let mut told = server.watched(Before::Silent);
        let asked = server.asked.load(Ordering::Relaxed);
        while server.asked.load(Ordering::Relaxed) < asked + 6 {
            sleep(Duration::from_millis(1)).await;
        }
        assert!(told.try_recv().is_err());
        server.be(ANSWERS);
        assert_eq!(next(&mut told).await, Seen::Answers);
    }

    #[test]
    fn pauses_differ_by_a_quarter_at_most() {
        let minute = Duration::from_secs(60);
        for _ in 0..100 {
            let pause = jittered(minute).as_secs_f64();
            assert!((45.0..=75.0).contains(&pause), "{pause}");
        }
    }
}
