// Rooms on Bun, as an optional yardstick of the benchmark `fanout`.
//
// Bun's WebSocket server is uWebSockets (C++). JavaScript handles each message that a client sends; the fan-out
// is the publish/subscribe of the C++ library, which writes once to each subscriber in each turn of its event
// loop.
//
//     npm install --prefix target/bun bun@1.4.5
//     cargo bench -p rooms --bench fanout -- \
//         --server-command "bun=target/bun/node_modules/.bin/bun $PWD/crates/rooms/benches/yardstick_bun.mjs"

// The tags of `WsPacket` (RFC-5).
const WELCOME = 0x0a;
const UPDATE = 0x1a;
const IDENTIFICATION = 0x3a;
// The tag of the alias, in a welcome and in an update.
const ALIAS = 0x08;

let aliases = 0;

function varint(number) {
  const bytes = [];
  for (; number > 0x7f; number >>>= 7) bytes.push((number & 0x7f) | 0x80);
  bytes.push(number);
  return bytes;
}

function packet(tag, alias, rest) {
  const head = [tag, ...varint(alias.length + rest.length), ...alias];
  const bytes = new Uint8Array(head.length + rest.length);
  bytes.set(head);
  bytes.set(rest, head.length);
  return bytes;
}

const server = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  fetch(request, server) {
    const topic = new URL(request.url).pathname;
    const alias = [ALIAS, ...varint(++aliases)];
    server.upgrade(request, { data: { topic, alias } });
  },
  websocket: {
    binaryType: "uint8array",
    perMessageDeflate: false,
    // As large as the queue of a member of Atoll. Above it, messages are dropped.
    backpressureLimit: 1024 * 1024,
    message(socket, message) {
      const { topic, alias } = socket.data;
      if (message[0] === UPDATE) {
        // The benchmark's updates are shorter than 128 bytes and have no alias.
        socket.publish(topic, packet(UPDATE, alias, message.subarray(2)));
      } else if (message[0] === IDENTIFICATION) {
        socket.subscribe(topic);
        socket.send(packet(WELCOME, alias, []));
      }
    },
  },
});
console.log(`127.0.0.1:${server.port}`);
