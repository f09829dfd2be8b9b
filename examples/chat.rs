//! A chat across the whole realm, over topics: every participant with the same ROOM receives every
//! line.
//!
//! `cargo run --example chat -- http://127.0.0.1:5000 plaza`

use std::{io::stdin, thread};

use anyhow::{Result, bail};
use client::{Dialect, Event, Explorer, Position, Settings, TopicEvent};
use tokio::sync::mpsc;

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [realm, room] = &args[..] else { bail!("usage: chat URL ROOM") };
    let gateway = client::discover(realm, Some(Dialect::Rpc)).await?;
    let identity = client::guest()?;
    eprintln!("you are {}", identity.address());
    let explorer = Explorer::start(Settings::new(gateway), identity);
    let handle = explorer.handle();
    // A gateway closes a session that never sends a position.
    handle.heartbeat(Position::new(0.0, 0.0, 0.0), None).await;
    let connection = tokio::spawn(print_closes(explorer));
    let topic = format!("chat.{room}");
    let mut messages = handle.subscribe(&topic).await?;
    eprintln!("subscribed to {topic}; type a message");
    let (line, mut lines) = mpsc::channel(1);
    thread::spawn(move || {
        stdin().lines().map_while(Result::ok).try_for_each(|text| line.blocking_send(text))
    });
    loop {
        tokio::select! {
            text = lines.recv() => {
                let Some(text) = text else { break };
                handle.publish(&topic, text).await.unwrap_or_else(|error| eprintln!("(not sent: {error})"));
            }
            event = messages.next() => match event {
                Some(TopicEvent::Message(message)) => {
                    let sender = message.sender.map_or("a server".into(), |sender| sender.to_string());
                    let mut text = String::from_utf8_lossy(&message.payload).into_owned();
                    // A message must not write escape sequences to another terminal.
                    text.retain(|char| !char.is_control());
                    println!("{sender}: {text}");
                }
                Some(TopicEvent::Gap) => eprintln!("(messages were lost meanwhile)"),
                Some(TopicEvent::Ended(reason)) => eprintln!("(the subscription ended: {reason})"),
                None => break,
            },
        }
    }
    handle.leave().await;
    Ok(connection.await?)
}

async fn print_closes(mut explorer: Explorer) {
    while let Some(event) = explorer.next().await {
        if let Event::Disconnected { reason, retry_in: comes_back } = event {
            eprintln!("({reason}{})", comes_back.map_or("", |_| "; reconnecting"));
        }
    }
}
