//! What each fault does to those who dial.

use super::*;
use crate::wait::eventually;

/// A server that sends back what it gets.
async fn echo() -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            connections.spawn(async move {
                let (mut reads, mut writes) = stream.split();
                let _ = io::copy(&mut reads, &mut writes).await;
            });
        }
    });
    (addr, tasks)
}

async fn ask(stream: &mut TcpStream, text: &str) -> io::Result<String> {
    stream.write_all(text.as_bytes()).await?;
    answer(stream, text.len()).await
}

async fn answer(stream: &mut TcpStream, len: usize) -> io::Result<String> {
    let mut back = vec![0; len];
    stream.read_exact(&mut back).await?;
    Ok(String::from_utf8(back).unwrap())
}

const SOON: Duration = Duration::from_millis(200);

#[tokio::test]
async fn silence_is_not_an_end_and_heals() {
    let (server, _tasks) = echo().await;
    let proxy = Proxy::start(server).await.unwrap();
    let mut old = TcpStream::connect(proxy.addr()).await.unwrap();
    assert_eq!(ask(&mut old, "a").await.unwrap(), "a");
    proxy.blackhole();
    assert!(tokio::time::timeout(SOON, ask(&mut old, "bc")).await.is_err());
    let mut new = TcpStream::connect(proxy.addr()).await.unwrap();
    assert!(tokio::time::timeout(SOON, ask(&mut new, "d")).await.is_err());
    proxy.heal();
    assert_eq!(answer(&mut old, 2).await.unwrap(), "bc");
    assert_eq!(answer(&mut new, 1).await.unwrap(), "d");
}

/// Some ask ten thousand times, one after the other.
#[tokio::test]
async fn a_good_link_waits_for_no_timer() {
    let (server, _tasks) = echo().await;
    let proxy = Proxy::start(server).await.unwrap();
    let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut fastest = Duration::MAX;
    for _ in 0..10 {
        let start = Instant::now();
        for _ in 0..100 {
            assert_eq!(ask(&mut stream, "a").await.unwrap(), "a");
        }
        fastest = fastest.min(start.elapsed());
    }
    // A timer is as coarse as a millisecond, and there would be one each way.
    assert!(fastest < Duration::from_millis(100), "{fastest:?} for a hundred");
}

#[tokio::test]
async fn one_is_silenced_and_the_other_is_not() {
    let (server, _tasks) = echo().await;
    // The first that comes is 0.
    let first = std::sync::OnceLock::new();
    let diallers: Diallers = Arc::new(move |from, _| Some(usize::from(*first.get_or_init(|| from) != from)));
    let proxy = Proxy::for_diallers(server, diallers).await.unwrap();
    let mut one = TcpStream::connect(proxy.addr()).await.unwrap();
    assert_eq!(ask(&mut one, "a").await.unwrap(), "a");
    let mut other = TcpStream::connect(proxy.addr()).await.unwrap();
    proxy.silence(0);
    assert!(tokio::time::timeout(SOON, ask(&mut one, "b")).await.is_err());
    assert_eq!(ask(&mut other, "c").await.unwrap(), "c");
    assert_eq!([0, 1, 2].map(|dialler| proxy.open_of(dialler)), [1, 1, 0]);
    proxy.silence(1);
    assert!(tokio::time::timeout(SOON, ask(&mut other, "d")).await.is_err());
    proxy.heal();
    assert_eq!(answer(&mut one, 1).await.unwrap(), "b");
    assert_eq!(answer(&mut other, 1).await.unwrap(), "d");
    drop(one);
    eventually(SOON, "one is gone", async || proxy.open_of(0) == 0).await;
    assert_eq!(proxy.open_of(1), 1);
}

#[tokio::test]
async fn a_cut_resets_old_and_new() {
    let (server, _tasks) = echo().await;
    let proxy = Proxy::start(server).await.unwrap();
    let mut old = TcpStream::connect(proxy.addr()).await.unwrap();
    ask(&mut old, "a").await.unwrap();
    proxy.cut();
    assert_eq!(old.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    let mut new = TcpStream::connect(proxy.addr()).await.unwrap();
    assert_eq!(new.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    proxy.heal();
    let mut new = TcpStream::connect(proxy.addr()).await.unwrap();
    assert_eq!(ask(&mut new, "a").await.unwrap(), "a");
    proxy.reset();
    assert_eq!(new.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    let mut new = TcpStream::connect(proxy.addr()).await.unwrap();
    assert_eq!(ask(&mut new, "a").await.unwrap(), "a");
    drop(new);
    eventually(Duration::from_secs(5), "all connections ended", async || proxy.open() == 0).await;
    assert_eq!(proxy.accepted(), 4);
}

#[tokio::test]
async fn leads_elsewhere() {
    let (first, tasks) = echo().await;
    let (second, _tasks) = echo().await;
    let proxy = Proxy::start(first).await.unwrap();
    let mut old = TcpStream::connect(proxy.addr()).await.unwrap();
    ask(&mut old, "a").await.unwrap();
    proxy.redirect(second);
    assert_eq!(old.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    drop(tasks);
    let mut new = TcpStream::connect(proxy.addr()).await.unwrap();
    assert_eq!(ask(&mut new, "b").await.unwrap(), "b");
}

#[tokio::test]
async fn unanswered_requests_take_effect() {
    let (server, _tasks) = echo().await;
    let proxy = Proxy::start(server).await.unwrap();
    let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
    proxy.drop_answers();
    assert!(tokio::time::timeout(SOON, ask(&mut stream, "abc")).await.is_err());
    assert_eq!((proxy.bytes_up(), proxy.bytes_down()), (3, 0));
}

#[tokio::test]
async fn slow_is_slow_and_whole() {
    let (server, _tasks) = echo().await;
    let proxy = Proxy::start(server).await.unwrap();
    proxy.latency(Duration::from_millis(60));
    let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
    let start = Instant::now();
    assert_eq!(ask(&mut stream, "a").await.unwrap(), "a");
    assert!(start.elapsed() >= Duration::from_millis(120));
    proxy.latency(Duration::ZERO);
    proxy.bandwidth(10_000);
    proxy.slice(7);
    let (text, start) = ("x".repeat(2_000), Instant::now());
    assert_eq!(ask(&mut stream, &text).await.unwrap(), text);
    assert!(start.elapsed() >= Duration::from_millis(190), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_server_that_is_down_resets_and_nothing_outlives_the_proxy() {
    let (server, tasks) = echo().await;
    drop(tasks);
    let proxy = Proxy::start(server).await.unwrap();
    let gone = async || TcpStream::connect(server).await.is_err();
    eventually(Duration::from_secs(5), "the server is gone", gone).await;
    let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
    assert!(stream.read(&mut [0]).await.is_err());
    let addr = proxy.addr();
    drop(proxy);
    let gone = async || TcpStream::connect(addr).await.is_err();
    eventually(Duration::from_secs(5), "the proxy is gone", gone).await;
}

#[tokio::test]
async fn a_patient_link_waits_for_the_server_to_listen() {
    let port = crate::ports::Port::reserve().unwrap();
    let proxy = Proxy::start(port.addr()).await.unwrap();
    let mut early = TcpStream::connect(proxy.addr()).await.unwrap();
    assert!(ask(&mut early, "a").await.is_err());
    proxy.patient();
    proxy.heal();
    let mut early = TcpStream::connect(proxy.addr()).await.unwrap();
    let listens = async {
        sleep(SOON).await;
        let listener = TcpListener::bind(port.addr()).await.unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        let byte = stream.read_u8().await.unwrap();
        stream.write_all(&[byte]).await.unwrap();
    };
    assert_eq!(tokio::join!(ask(&mut early, "b"), listens).0.unwrap(), "b");
}
