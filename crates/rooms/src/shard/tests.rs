//! Members on TCP sockets, which a shard polls by itself; and the order in which it serves members.

use std::{future::pending, io, net::SocketAddr, ops::ControlFlow, sync::Arc, task::Wake, time::Duration};

use admission::ConnectionLimits;
use listener::ClientAddresses;
use mio::{Registry, event::Event};
use parking_lot::Mutex;
use protocol::rfc5::ws_packet::Message;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, timeout},
};
use ws::testing::{BINARY, CLOSE, PING, PONG, RawClient, client_frame};

use super::{SILENT_AFTER, Shard, TURN};
use crate::{
    pace::tests::{authenticate, packet, router, send, update},
    shard_handle::{Flush, MemberSocket, MemberWaker, ShardHandle},
};

type Client = RawClient<TcpStream>;

const SECOND: Duration = Duration::from_secs(1);

/// Serves rooms as the binary does. Returns the address.
async fn serve() -> SocketAddr {
    let unlimited = ConnectionLimits { total: 100, per_network: None, rate: None };
    let settings = listener::Settings {
        name: "test",
        head_timeout: SECOND,
        idle_timeout: SECOND,
        write_timeout: SECOND,
        connections: unlimited,
        addresses: ClientAddresses::default(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(listener::serve(listener, router(10 * SECOND), settings, pending()));
    address
}

async fn enter(server: SocketAddr, wallet: u8) -> Client {
    let stream = TcpStream::connect(server).await.unwrap();
    authenticate(RawClient::open(stream, "/rooms/lobby").await, wallet).await
}

/// Two members of one room; the first knows the second.
async fn pair() -> (Client, Client) {
    let server = serve().await;
    let mut first = enter(server, 1).await;
    let second = enter(server, 2).await;
    assert!(matches!(packet(&mut first).await, Message::PeerJoinMessage(_)));
    (first, second)
}

/// The body of the next packet, which must be an update.
async fn received(client: &mut Client) -> Vec<u8> {
    // Less than the ping interval, at which a shard that was not woken would look at its sockets.
    match timeout(5 * SECOND, packet(client)).await {
        Ok(Message::PeerUpdateMessage(update)) => update.body.to_vec(),
        message => panic!("unexpected {message:?}"),
    }
}

#[tokio::test]
async fn silent_shard_is_woken_by_the_first_message() {
    let (mut first, mut second) = pair().await;
    for number in 0..3u8 {
        // Longer than a shard stays active without messages.
        sleep(2 * SILENT_AFTER).await;
        send(&mut second, update(vec![number], true)).await;
        assert_eq!(received(&mut first).await, [number]);
    }
}

#[tokio::test]
async fn message_larger_than_a_read_arrives_whole() {
    let (mut first, mut second) = pair().await;
    let body: Vec<u8> = (0..60_000u32).map(|number| number as u8).collect();
    send(&mut second, update(body.clone(), false)).await;
    assert_eq!(received(&mut first).await, body);
}

#[tokio::test]
async fn ping_behind_many_messages_is_answered() {
    let (mut first, _second) = pair().await;
    for number in 0..15u8 {
        send(&mut first, update(vec![number], false)).await;
    }
    first.send(PING, b"last").await;
    assert_eq!(first.receive().await, Some((PONG, b"last".to_vec())));
}

/// Data and the end of the stream may be reported together.
#[tokio::test]
async fn last_message_and_the_disconnect_behind_it_are_read() {
    let server = serve().await;
    let mut first = enter(server, 1).await;
    for wallet in 2..10 {
        let mut second = enter(server, wallet).await;
        assert!(matches!(packet(&mut first).await, Message::PeerJoinMessage(_)));
        send(&mut second, update(vec![wallet], false)).await;
        second.0.shutdown().await.unwrap();
        assert_eq!(received(&mut first).await, [wallet]);
        let left = timeout(5 * SECOND, packet(&mut first)).await;
        assert!(matches!(left, Ok(Message::PeerLeaveMessage(_))), "{left:?}");
    }
}

#[tokio::test]
async fn close_frame_of_the_client_is_answered() {
    let (mut first, mut second) = pair().await;
    let message = client_frame(BINARY, b"");
    second.0.write_all(&[message, client_frame(CLOSE, &1000u16.to_be_bytes())].concat()).await.unwrap();
    assert_eq!(second.receive().await, Some((CLOSE, 1000u16.to_be_bytes().to_vec())));
    assert!(matches!(packet(&mut first).await, Message::PeerLeaveMessage(_)));
    assert_eq!(second.receive().await, None, "the server closes the connection");
}

/// A socket that only records when it is served.
struct RecordedSocket {
    waker: Arc<MemberWaker>,
    alias: u32,
    served: Arc<Mutex<Vec<u32>>>,
}

impl MemberSocket for RecordedSocket {
    fn alias(&self) -> u32 {
        self.alias
    }

    fn register(&mut self, _: &Registry) -> io::Result<()> {
        Ok(())
    }

    fn set_ready(&mut self, _: &Event) -> bool {
        false
    }

    fn serve(&mut self, now: Instant) -> ControlFlow<(), Instant> {
        self.waker.clear();
        self.served.lock().push(self.alias);
        ControlFlow::Continue(now + Duration::from_secs(3_600))
    }

    fn end(self: Box<Self>, _: &Registry) {}
}

/// A room that has a frame for each member.
struct WakingRoom(Vec<Arc<MemberWaker>>);

impl Flush for WakingRoom {
    fn flush(&self) {
        self.0.iter().for_each(Wake::wake_by_ref);
    }
}

#[tokio::test(start_paused = true)]
async fn small_room_does_not_wait_for_a_large_one() {
    let (handle, served) = (Arc::new(ShardHandle::default()), Arc::<Mutex<Vec<u32>>>::default());
    let enter = |alias| {
        let waker = MemberWaker::new(alias, handle.clone());
        let (socket_waker, served) = (waker.clone(), served.clone());
        handle.add(Box::new(RecordedSocket { waker: socket_waker, alias, served }));
        waker
    };
    let large = WakingRoom((0..1_000).map(enter).collect());
    let small = WakingRoom((1_000..1_010).map(enter).collect());
    let interval = Duration::from_millis(14);
    let shard = tokio::spawn(Shard::new(handle.clone(), interval).unwrap().run());
    sleep(interval).await;
    served.lock().clear();
    handle.schedule_flush(Arc::new(large));
    handle.schedule_flush(Arc::new(small));
    sleep(2 * interval).await;
    let served = served.lock().clone();
    assert_eq!(served.len(), 1_010, "each member is served once");
    let last_small = served.iter().rposition(|&alias| alias >= 1_000).unwrap();
    assert!(last_small < TURN + 10, "one turn of the large room comes before: {last_small}");
    shard.abort();
}
