// A client that knows only the mesh: it signs in at the archipelago socket, and is a member of the mesh of its island
// with the RTCPeerConnection of the browser. Follows the description in docs/p2p.md.

const root = new protobuf.Root();
protos.forEach(text => protobuf.parse(text, root, { keepCase: true }));
root.resolveAll();
const [ClientPacket, ServerPacket] = ['ClientPacket', 'ServerPacket'].map(name =>
  root.lookupType(`decentraland.kernel.comms.v3.${name}`));
const Packet = root.lookupType('atoll.mesh.Packet');

let socket;
let own;
let waiters = [];
const state = { island: null, connection: null, plan: null, received: [], offered: 0, answered: 0 };
// By alias.
const links = new Map();
let sequence = Date.now();

const send = message => socket.send(ClientPacket.encode(ClientPacket.fromObject(message)).finish());
const address_of = alias => state.plan?.members.find(member => member.alias === alias)?.address;
const alias_of = address => state.plan?.members.find(member => member.address === address)?.alias;
const next = kind => new Promise(resolve => waiters.push([kind, resolve]));

// Resolves to the challenge.
window.connect = (url, address) => {
  own = address;
  socket = new WebSocket(url, 'archipelago');
  socket.binaryType = 'arraybuffer';
  socket.onmessage = event => receive(ServerPacket.decode(new Uint8Array(event.data)));
  socket.onopen = () => send({ challenge_request: { address, transports: ['p2p', 'ws-room'] } });
  return next('challenge_response').then(response => response.challenge_to_sign);
};

// Resolves to the address that the server knows.
window.authenticate = (auth_chain_json, x) => {
  send({ signed_challenge: { auth_chain_json } });
  return next('welcome').then(welcome => {
    const heartbeat = () => send({ heartbeat: { position: { x, y: 0, z: 0 } } });
    heartbeat();
    setInterval(heartbeat, 1000);
    setInterval(report, 1000);
    setInterval(offer_missing, 500);
    return welcome.peer_id;
  });
};

window.publish = (text, label) => {
  const payload = new TextEncoder().encode(text);
  sequence += 1;
  const packet = Packet.fromObject({ source: state.plan.alias, version: state.plan.version, sequence, payload });
  const bytes = Packet.encode(packet).finish();
  own_neighbours().forEach(alias => links.get(alias)?.channels[label]?.send(bytes));
};

// The members that the plan sends own messages to.
const own_neighbours = () => state.plan?.routes.find(route => route.source === state.plan.alias)?.to ?? [];

window.state = () => ({
  ...state,
  plan: undefined,
  alias: state.plan?.alias,
  routed: own_neighbours().map(address_of),
});

function receive(message) {
  const kind = message.message;
  waiters = waiters.filter(([wanted, resolve]) => wanted !== kind || resolve(message[kind]));
  if (kind === 'island_changed') {
    state.island = message.island_changed.island_id;
    state.connection = message.island_changed.conn_str;
  } else if (kind === 'mesh_plan') {
    apply(message.mesh_plan);
  } else if (kind === 'mesh_signal') {
    signalled(message.mesh_signal).catch(error => console.log(`signal: ${error}`));
  }
}

function apply(plan) {
  state.plan = plan;
  for (const alias of links.keys()) {
    if (!plan.links.some(link => link.alias === alias)) {
      drop(alias);
    }
  }
  offer_missing();
  report();
}

function drop(alias) {
  links.get(alias)?.connection.close();
  links.delete(alias);
}

// An attempt that takes too long is given up, and made anew.
function offer_missing() {
  for (const { alias, initiate } of state.plan?.links ?? []) {
    const link = links.get(alias);
    if (link && !is_up(link) && Date.now() - link.since > 4000) {
      drop(alias);
    }
    if (initiate && !links.has(alias)) {
      offer(alias).catch(error => console.log(`offer: ${error}`));
    }
  }
}

async function offer(alias) {
  const link = open(alias, 1 + Math.floor(Math.random() * 2 ** 31));
  use(link, link.connection.createDataChannel('data'));
  use(link, link.connection.createDataChannel('lossy', { ordered: false, maxRetransmits: 0 }));
  await link.connection.setLocalDescription();
  state.offered += 1;
  signal(alias, link, { offer: link.connection.localDescription.sdp });
}

async function signalled(signal_) {
  const alias = alias_of(signal_.peer);
  if (signal_.content === 'offer') {
    drop(alias);
    const link = open(alias, signal_.negotiation);
    link.connection.ondatachannel = event => use(link, event.channel);
    await link.connection.setRemoteDescription({ type: 'offer', sdp: signal_.offer });
    await link.connection.setLocalDescription();
    state.answered += 1;
    signal(alias, link, { answer: link.connection.localDescription.sdp });
  } else if (signal_.content === 'answer') {
    await links.get(alias)?.connection.setRemoteDescription({ type: 'answer', sdp: signal_.answer });
  } else if (signal_.content === 'candidate') {
    await links.get(alias)?.connection.addIceCandidate(JSON.parse(signal_.candidate));
  }
}

function open(alias, negotiation) {
  const link = { connection: new RTCPeerConnection(), negotiation, channels: {}, since: Date.now() };
  links.set(alias, link);
  link.connection.onicecandidate = ({ candidate }) => {
    if (candidate?.candidate) {
      signal(alias, link, { candidate: JSON.stringify(candidate) });
    }
  };
  return link;
}

function use(link, channel) {
  link.channels[channel.label] = channel;
  channel.binaryType = 'arraybuffer';
  channel.onopen = report;
  channel.onclose = report;
  channel.onmessage = ({ data }) => {
    const packet = Packet.decode(new Uint8Array(data));
    const text = new TextDecoder().decode(packet.payload);
    state.received.push({ from: address_of(packet.source), text, label: channel.label });
  };
}

function signal(alias, link, content) {
  const [island_id, peer, negotiation] = [state.island, address_of(alias), link.negotiation];
  send({ mesh_signal: { island_id, peer, negotiation, ...content } });
}

function is_up({ channels: { data, lossy } }) {
  return data?.readyState === 'open' && lossy?.readyState === 'open';
}

function report() {
  if (!state.plan) {
    return;
  }
  const { alias, version, members } = state.plan;
  const connected_to = [...links].filter(([, link]) => is_up(link)).map(([alias]) => alias);
  send({
    mesh_links: {
      island_id: state.island,
      version,
      connected_to,
      alias,
      highest_alias: Math.max(...members.map(member => member.alias)),
      neighbours: connected_to.map(alias => ({ alias, address: address_of(alias) })),
    },
  });
}
