// Calls every procedure of a gateway with the official client, and checks the responses.
import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import { Wallet } from 'ethers'

const require = createRequire(import.meta.url)
const WebSocket = require('ws')
const { createRpcClient } = require('@dcl/rpc')
const { loadService } = require('@dcl/rpc/dist/codegen')
const { WebSocketTransport } = require('@dcl/rpc/dist/transports/WebSocket')
const bff = (name) => require(`@dcl/protocol/out-js/decentraland/bff/${name}.gen`)
const { BffAuthenticationServiceDefinition } = bff('authentication_service')
const { CommsDirectorServiceDefinition } = bff('comms_director_service')
const { TopicsServiceDefinition } = bff('topics_service')
const { CommsServiceDefinition } = bff('comms_service')
const { Heartbeat } = bff('comms_director_service')
const { IslandChangedMessage, JoinIslandMessage } = require('@dcl/protocol/out-js/decentraland/kernel/comms/v3/archipelago.gen')

// A deadline for the whole run.
setTimeout(() => (console.error('not in time'), process.exit(1)), 60_000).unref()

const realm = process.argv[2] ?? 'http://127.0.0.1:5000'
const text = (bytes) => new TextDecoder().decode(bytes)
const bytes = (said) => new TextEncoder().encode(said)
const report = (label, result) => console.log(`${label.padEnd(46)} ${result}`)
// The output must not contain tokens.
const public_part = (connection) => connection.split('?')[0]

async function first(stream) {
  const { value } = await stream[Symbol.asyncIterator]().next()
  return value
}

async function refused(label, call) {
  await assert.rejects(call, (error) => (report(label, error.message), /RemoteError/.test(error.message)))
}

async function connect(about) {
  const url = realm.replace(/^http/, 'ws') + about.bff.publicUrl + '/rpc'
  const socket = new WebSocket(url, 'bff')
  const closed = new Promise((resolve) => socket.on('close', (code, reason) => resolve([code, `${reason}`])))
  const client = await createRpcClient(WebSocketTransport(socket))
  const port = await client.createPort('trial')
  return { port, closed, auth: loadService(port, BffAuthenticationServiceDefinition), socket }
}

async function signIn(about, wallet) {
  const { port, closed, auth, socket } = await connect(about)
  const address = wallet.address.toLowerCase()
  const { challengeToSign, alreadyConnected } = await auth.getChallenge({ address })
  const chain = [
    { type: 'SIGNER', payload: address, signature: '' },
    { type: 'ECDSA_SIGNED_ENTITY', payload: challengeToSign, signature: await wallet.signMessage(challengeToSign) }
  ]
  const welcome = await auth.authenticate({ authChainJson: JSON.stringify(chain) })
  assert.equal(welcome.peerId, address)
  report('GetChallenge, Authenticate', `${address.slice(0, 8)}… alreadyConnected=${alreadyConnected} ${welcome.availableModules}`)
  return {
    address, port, closed, auth, socket, alreadyConnected,
    director: loadService(port, CommsDirectorServiceDefinition),
    topics: loadService(port, TopicsServiceDefinition),
    comms: loadService(port, CommsServiceDefinition)
  }
}

const about = await (await fetch(`${realm}/about`)).json()
const stranger = await connect(about)
await refused('TopicsService before the sign-in', () =>
  loadService(stranger.port, TopicsServiceDefinition).publishToTopic({ topic: 'a', payload: bytes('') }))
stranger.socket.close()

const [alice, bob] = [Wallet.createRandom(), Wallet.createRandom()]
const one = await signIn(about, alice)
const two = await signIn(about, bob)

const commands = one.director.getCommsCommands({})
const command = first(commands)
await one.director.sendHeartbeat({ position: { x: 8, y: 0, z: 8 } })
const adapter = (await command).command.setCommsAdapter.connectionString
report('SendHeartbeat, GetCommsCommands', public_part(adapter))

const islandId = public_part(adapter).split('/').pop()
const joins = first(one.topics.systemSubscription({ topic: `island.${islandId}.peer_join` }))

const island = two.topics.systemSubscription({ topic: `${two.address}.island_changed` })
const changed = first(island)
const position = { x: 9, y: 0, z: 8 }
await two.topics.publishToTopic({ topic: 'heartbeat', payload: Heartbeat.encode({ position }).finish() })
const change = IslandChangedMessage.decode((await changed).payload)
report('topic heartbeat, <own address>.island_changed', `${change.islandId} ${public_part(change.connStr)}`)
assert.equal(public_part(change.connStr), public_part(adapter))
const joined = JoinIslandMessage.decode((await joins).payload)
report('system topic island.<id>.peer_join', `${joined.peerId.slice(0, 8)}… joined ${joined.islandId}`)
assert.equal(joined.peerId, two.address)

const greetings = first(two.topics.peerSubscription({ topic: `${two.address}.greeting` }))
// The response to this call follows the subscription on the same connection: both are in place then.
await two.topics.publishToTopic({ topic: 'no.subscriber', payload: bytes('') })
const { ok } = await one.topics.publishToTopic({ topic: `${two.address}.greeting`, payload: bytes('hi') })
const greeting = await greetings
report('TopicsService: PublishToTopic to a mailbox', `ok=${ok} ${greeting.sender.slice(0, 8)}… published ${text(greeting.payload)}`)
assert.equal(greeting.sender, one.address)
const knock = first(two.topics.peerSubscription({ topic: 'messageBus.scene.urn%3Aa.door' }))
await two.topics.publishToTopic({ topic: 'no.subscriber', payload: bytes('') })
await one.topics.publishToTopic({ topic: 'messageBus.scene.urn:a.door', payload: bytes('knock') })
const { topic, sender, payload } = await knock
report("TopicsService: a scene's topic", `${topic} ${sender.slice(0, 8)}… says ${text(payload)}`)
assert.equal(sender, one.address)
await refused("TopicsService: another's mailbox", () => first(one.topics.peerSubscription({ topic: `${two.address}.greeting` })))
const offer = JSON.stringify({ type: 'offer', sdp: 'v=0' })
await refused('TopicsService: an offer outside a mesh', () => one.topics.publishToTopic({ topic: `${two.address}.offer`, payload: bytes(offer) }))
await refused('TopicsService: not a topic', () => one.topics.publishToTopic({ topic: 'a..b', payload: bytes('') }))

const subscription = await two.comms.subscribeToPeerMessages({ topic: 'plaza.*' })
for (const said of ['one', 'two', 'three']) await one.comms.publishToTopic({ topic: 'plaza.chat', payload: bytes(said) })
const heard = []
for await (const message of two.comms.getPeerMessages(subscription)) {
  heard.push(text(message.payload))
  if (heard.length === 3) break
}
report('CommsService: subscribe, publish, get', heard.join(' '))
assert.deepEqual(heard, ['one', 'two', 'three'])
report('CommsService: UnsubscribeToPeerMessages', `ok=${(await two.comms.unsubscribeToPeerMessages(subscription)).ok}`)
const system = await two.comms.subscribeToSystemMessages({ topic: 'news' })
const silent = two.comms.getSystemMessages(system)[Symbol.asyncIterator]().next()
report('CommsService: UnsubscribeToSystemMessages', `ok=${(await two.comms.unsubscribeToSystemMessages(system)).ok}`)
await refused('CommsService: GetSystemMessages of none', () => first(two.comms.getSystemMessages({ subscriptionId: 99 })))
void silent.catch(() => {})

const goodbye = one.auth.getDisconnectionMessage({})
const newer = await signIn(about, alice)
assert.equal(newer.alreadyConnected, true)
report('GetDisconnectionMessage', JSON.stringify(await goodbye))
report('the older socket closed', (await one.closed).join(' '))
for (const { socket } of [two, newer]) socket.close()
console.log('all checks passed')
