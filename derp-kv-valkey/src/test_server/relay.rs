use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::sleep;

use super::faults::{Fault, Faults, Traffic, Waiting};
use super::requests::Requests;

/// Carries one connection until either side ends it, or a fault does.
pub(super) async fn relay(client: TcpStream, upstream: u16, faults: Arc<Faults>) {
    let mut cuts = faults.cuts.subscribe();
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream)).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let mode = faults.mode.subscribe();
    // Dropping both sockets is the cut.
    tokio::select! {
        _ = carry(client, server, &faults, mode) => {}
        _ = cuts.changed() => {}
    }
}

async fn carry(
    mut client: TcpStream,
    mut server: TcpStream,
    faults: &Faults,
    mut mode: watch::Receiver<Traffic>,
) -> std::io::Result<()> {
    let mut hole = Hole::default();
    let mut requests = Requests::default();
    let (mut up, mut down) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        hole.deepen(*mode.borrow_and_update());
        tokio::select! {
            biased;
            changed = mode.changed() => if changed.is_err() { return Ok(()) },
            read = client.read(&mut up) => {
                let read = read?;
                if read == 0 { return Ok(()) }
                for request in requests.push(&up[..read]) {
                    faults.requests.send_modify(|count| *count += 1);
                    if hole.both { continue }
                    let Some(waiting) = faults.take_fault(&request) else {
                        server.write_all(&request).await?;
                        continue;
                    };
                    return strike(waiting, &request, client, server).await;
                }
            }
            read = server.read(&mut down) => {
                let read = read?;
                if read == 0 {
                    // A hole swallows the end of a stream as well.
                    if hole.replies { return std::future::pending().await }
                    return Ok(());
                }
                let now = *mode.borrow();
                if let Traffic::Delay(delay) = now {
                    sleep(delay).await;
                }
                let now = *mode.borrow();
                hole.deepen(now);
                if !hole.replies { client.write_all(&down[..read]).await? }
            }
        }
    }
}

/// Which directions are lost for good.
#[derive(Default)]
struct Hole {
    both: bool,
    replies: bool,
}

impl Hole {
    fn deepen(&mut self, mode: Traffic) {
        self.both |= mode == Traffic::HoleBoth;
        self.replies |= self.both || mode == Traffic::HoleReplies;
    }
}

async fn strike(
    waiting: Waiting,
    request: &[u8],
    mut client: TcpStream,
    mut server: TcpStream,
) -> std::io::Result<()> {
    if waiting.fault == Fault::CutBefore {
        drop((client, server));
        let _ = waiting.done.send(());
        return Ok(());
    }
    server.write_all(request).await?;
    // The server executes all that it was sent before it sees the end: once its own end comes
    // back, the request has been executed.
    server.shutdown().await?;
    let mut answer = Vec::new();
    let _ = server.read_to_end(&mut answer).await;
    if waiting.fault == Fault::CutReply {
        client.write_all(&answer[..answer.len() / 2]).await?;
        client.shutdown().await?;
    }
    if waiting.fault == Fault::HoleReply {
        let _ = waiting.done.send(());
        let mut rest = vec![0; 64 * 1024];
        // Requests go on being taken, or the client would notice a full socket.
        while client.read(&mut rest).await? > 0 {}
        return Ok(());
    }
    drop(client);
    let _ = waiting.done.send(());
    Ok(())
}
