//! The end of a listener.

use super::*;

#[tokio::test]
async fn shutdown_answers_running_requests_and_closes_idle() {
    let gate = Gate::default();
    let mut server = Server::start_with(settings(), gate.router()).await;
    let mut idle = server.connect().await;
    idle.write_all(REQUEST).await.unwrap();
    response(&mut idle).await;
    let mut busy = server.connect().await;
    busy.write_all(GATED).await.unwrap();
    gate.arrived.notified().await;
    server.stop.take().unwrap().send(()).unwrap();
    assert!(is_closed(&mut idle).await);
    assert!(!server.ended.is_finished());
    gate.open.notify_one();
    assert!(response(&mut busy).await.ends_with("done"));
    timeout(TIMEOUT, &mut server.ended).await.unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err(), "the port is free");
}
