//! A chat across the whole realm, over topics: who is in the same room hears every line.
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
    // A gateway lets go of whoever is nowhere.
    handle.heartbeat(Position::new(0.0, 0.0, 0.0), None).await;
    let connection = tokio::spawn(tell_of(explorer));
    let topic = format!("chat.{room}");
    let mut messages = handle.subscribe(&topic).await?;
    eprintln!("you hear {topic}; say something");
    let (line, mut lines) = mpsc::channel(1);
    thread::spawn(move || {
        stdin().lines().map_while(Result::ok).try_for_each(|text| line.blocking_send(text))
    });
    loop {
        tokio::select! {
            text = lines.recv() => {
                let Some(text) = text else { break };
                handle.publish(&topic, text).await.unwrap_or_else(|error| eprintln!("(not said: {error})"));
            }
            event = messages.next() => match event {
                Some(TopicEvent::Message(message)) => {
                    let sender = message.sender.map_or("a server".into(), |sender| sender.to_string());
                    let mut text = String::from_utf8_lossy(&message.payload).into_owned();
                    // Nobody writes escapes to the terminals of others.
                    text.retain(|char| !char.is_control());
                    println!("{sender}: {text}");
                }
                Some(TopicEvent::Gap) => eprintln!("(what was said meanwhile is lost)"),
                Some(TopicEvent::Ended(reason)) => eprintln!("(you hear nothing more: {reason})"),
                None => break,
            },
        }
    }
    handle.leave().await;
    Ok(connection.await?)
}

async fn tell_of(mut explorer: Explorer) {
    while let Some(event) = explorer.next().await {
        if let Event::Disconnected { reason, retry_in: comes_back } = event {
            eprintln!("({reason}{})", comes_back.map_or("", |_| "; coming back"));
        }
    }
}
