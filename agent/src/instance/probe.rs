//! Whether the guest's SSH server answers.

use std::{
    net::{Ipv6Addr, SocketAddrV6},
    time::Duration,
};

use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

/// For one attempt: connection and the beginning of the banner.
const ATTEMPT: Duration = Duration::from_secs(3);
/// While a guest boots it is asked often, later seldom: it may have no SSH server.
const EAGER: Duration = Duration::from_secs(180);

/// Returns when the server at port 22 has sent an SSH banner (RFC 4253, 4.2).
pub(super) async fn until_ssh_answers(address: Ipv6Addr) {
    let began = Instant::now();
    loop {
        if let Ok(true) = timeout(ATTEMPT, has_banner(address)).await {
            return;
        }
        let eager = began.elapsed() < EAGER;
        sleep(if eager {
            Duration::from_millis(500)
        } else {
            Duration::from_secs(15)
        })
        .await;
    }
}

async fn has_banner(address: Ipv6Addr) -> bool {
    let Ok(mut stream) = TcpStream::connect(SocketAddrV6::new(address, 22, 0, 0)).await else {
        return false;
    };
    let mut start = [0; 4];
    stream.read_exact(&mut start).await.is_ok() && start == *b"SSH-"
}
