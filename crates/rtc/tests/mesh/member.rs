//! A member under test.

use std::time::{Duration, Instant};

use protocol::mesh::{LinkReport, Plan};
use rtc::mesh::{Counters, Data, Event, MeshInputs, MeshPeer, MeshSender, Options};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::hub::{Hub, ISLAND, address, plan};

/// The timeout of a step, long enough for a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// A peer with its events sorted by kind.
pub(crate) struct TestMember {
    pub(crate) alias: u32,
    pub(crate) inputs: MeshInputs,
    pub(crate) sender: MeshSender,
    pub(crate) reports: watch::Receiver<LinkReport>,
    data: mpsc::UnboundedReceiver<Data>,
    counters: watch::Receiver<Counters>,
    /// Whether no events are read.
    paused: watch::Sender<bool>,
    /// The peer is dropped when this is aborted.
    task: JoinHandle<()>,
}

impl Drop for TestMember {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) fn options(alias: u32) -> Options {
    Options { udp_addresses: vec!["127.0.0.1:0".parse().unwrap()], ..Options::new(address(alias), ISLAND) }
}

impl TestMember {
    pub(crate) fn start(hub: &Hub, alias: u32) -> Self {
        Self::start_with(hub, alias, options(alias))
    }

    pub(crate) fn start_with(hub: &Hub, alias: u32, options: Options) -> Self {
        let (hub, own) = (hub.clone(), options.address);
        let mut peer = MeshPeer::start(options);
        let (inputs, sender) = (peer.inputs(), peer.sender());
        hub.register(own, inputs.clone());
        let (report_sender, reports) = watch::channel(LinkReport::default());
        let (counter_sender, counters) = watch::channel(Counters::default());
        let (data_sender, data) = mpsc::unbounded_channel();
        let (paused, pauses) = watch::channel(false);
        let task = tokio::spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_millis(20));
            loop {
                tokio::select! {
                    _ = tick.tick() => drop(counter_sender.send(peer.counters())),
                    event = peer.next(), if !*pauses.borrow() => match event {
                        Some(Event::Signal(signal)) => hub.forward(own, signal),
                        Some(Event::Report(report)) => drop(report_sender.send(report)),
                        Some(Event::Data(data)) => drop(data_sender.send(data)),
                        Some(Event::Members { .. }) => {}
                        None => return,
                    },
                }
            }
        });
        Self { alias, inputs, sender, reports, data, counters, paused, task }
    }

    /// Reads no more events.
    pub(crate) fn pause(&self) {
        self.paused.send_replace(true);
    }

    pub(crate) fn resume(&self) {
        self.paused.send_replace(false);
    }

    /// Sends the plan of a mesh with these members and links.
    pub(crate) fn plan(&self, version: u32, members: &[u32], links: &[(u32, u32)]) {
        self.send_plan(plan(version, self.alias, members, links));
    }

    pub(crate) fn send_plan(&self, plan: Plan) {
        self.inputs.plan(plan).unwrap();
    }

    /// Waits for a report that `accept` accepts.
    pub(crate) async fn reported(&mut self, accept: impl FnMut(&LinkReport) -> bool) -> LinkReport {
        let report = timeout(LIMIT, self.reports.wait_for(accept)).await;
        report.unwrap_or_else(|_| panic!("member {}: no such report", self.alias)).unwrap().clone()
    }

    /// Waits until the links to these members, and no others, are up.
    pub(crate) async fn linked_to(&mut self, aliases: &[u32]) {
        self.reported(|report| report.connected_to == aliases).await;
    }

    pub(crate) async fn data(&mut self) -> Data {
        timeout(LIMIT, self.data.recv()).await.expect("a message in time").unwrap()
    }

    pub(crate) async fn no_data(&mut self) {
        let data = timeout(Duration::from_millis(300), self.data.recv()).await;
        assert!(data.is_err(), "{data:?}");
    }

    /// Counters that are at most 50 ms old.
    pub(crate) async fn counters(&self) -> Counters {
        sleep(Duration::from_millis(50)).await;
        *self.counters.borrow()
    }

    /// Waits for counters that `accept` accepts.
    pub(crate) async fn counted(&mut self, accept: impl FnMut(&Counters) -> bool) {
        timeout(LIMIT, self.counters.wait_for(accept)).await.expect("counters in time").unwrap();
    }
}

/// Members with these aliases, linked as the plan of version 1 lists.
pub(crate) async fn mesh<const N: usize>(
    hub: &Hub,
    aliases: [u32; N],
    links: &[(u32, u32)],
) -> [TestMember; N] {
    let mut members = aliases.map(|alias| TestMember::start(hub, alias));
    link(&mut members, 1, &aliases, links).await;
    members
}

/// Sends a plan to members, and waits for its links.
pub(crate) async fn link(members: &mut [TestMember], version: u32, aliases: &[u32], links: &[(u32, u32)]) {
    let began = Instant::now();
    for member in members.iter() {
        member.plan(version, aliases, links);
    }
    for member in members.iter_mut() {
        let plan = plan(version, member.alias, aliases, links);
        let neighbours: Vec<u32> = plan.links.iter().map(|link| link.alias).collect();
        member
            .reported(|report| {
                report.version == version
                    && neighbours.iter().all(|alias| report.connected_to.contains(alias))
            })
            .await;
    }
    println!("plan {version}: {} links after {:?}", links.len(), began.elapsed());
}
