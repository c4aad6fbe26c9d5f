//! What happens to the requests on a connection that is given up.

mod common;
mod fake;

use std::io::ErrorKind;
use std::net::Ipv4Addr;

use common::{connect, ends};
use derp_kv_core::KvStore;
use fake::{greeting, request};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

async fn serve(mut client: BufReader<TcpStream>, requests: usize) -> BufReader<TcpStream> {
    for _ in 0..requests {
        let Some(request) = request(&mut client).await else { break };
        let answer = greeting(&request, "8.0.1", "standalone").unwrap_or("+OK\r\n".to_owned());
        client.write_all(answer.as_bytes()).await.expect("answer");
    }
    client
}

/// The peer takes nothing more, and the kernel holds a part of a write; once the link has another
/// connection and newer writes are through, that part must not arrive.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_has_not_left_dies_with_its_connection() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let address = ("127.0.0.1".to_owned(), listener.local_addr().expect("bound").port());
    let accept = async || BufReader::new(listener.accept().await.expect("accept").0);
    let login = async {
        // Two greetings and the request for news; after that it reads no more.
        serve(accept().await, 3).await
    };
    let (store, mut old) = tokio::join!(connect(address), login);

    let large = vec![b'x'; 32 << 20];
    let writer = store.clone();
    let older = tokio::spawn(async move { writer.set(b"k", &large, None).await });
    let new = tokio::spawn(serve(accept().await, usize::MAX));
    let error = ends("the older write", older).await.expect("ends").expect_err("no answer");
    assert!(error.may_have_applied(), "{error:?}");
    ends("the newer write", store.set(b"k", b"new", None)).await.expect("another connection");
    drop(store);
    ends("the new connection", new).await.expect("served");

    let mut rest = vec![0; 1 << 20];
    let end = loop {
        match ends("the rest", old.read(&mut rest)).await {
            Ok(0) => break None,
            Ok(_) => {}
            Err(error) => break Some(error.kind()),
        }
    };
    assert_eq!(end, Some(ErrorKind::ConnectionReset), "the kernel went on sending");
}
