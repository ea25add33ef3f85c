// A Helia node on loopback, controlled by commands on standard input, one per line.
//
// Usage: helia.mjs PORT [server|client]
// With a second argument it is a server or a client of the DHT of the local network; without, it has no routing.
// Commands: connect MULTIADDRESS, peers, add FILE, provide CID, find CID, pin CID, get CID FILE, quit. Each is answered
// with one line: its name in capitals, then the result.
import { createReadStream, createWriteStream } from 'node:fs'
import { createInterface } from 'node:readline'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { setTimeout } from 'node:timers/promises'

import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { bitswap } from '@helia/block-brokers'
import { libp2pRouting } from '@helia/routers'
import { unixfs } from '@helia/unixfs'
import { Helia } from '@helia/utils'
import { identify } from '@libp2p/identify'
import { kadDHT, passthroughMapper } from '@libp2p/kad-dht'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { multiaddr } from '@multiformats/multiaddr'
import { MemoryBlockstore } from 'blockstore-core'
import { MemoryDatastore } from 'datastore-core'
import { createLibp2p } from 'libp2p'
import { CID } from 'multiformats/cid'

// Without the services that look for peers on the Internet: it talks only to nodes that it is told to connect to, and
// those that the DHT's peers report.
const [port, mode] = process.argv.slice(2)
const services = { identify: identify() }
if (mode) {
  services.ping = ping()
  services.dht = kadDHT({
    protocol: '/ipfs/lan/kad/1.0.0',
    clientMode: mode === 'client',
    // The default removes private addresses.
    peerInfoMapper: passthroughMapper
  })
}
const libp2p = await createLibp2p({
  addresses: { listen: [`/ip4/127.0.0.1/tcp/${port}`] },
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  services
})
const helia = new Helia({
  libp2p,
  blockstore: new MemoryBlockstore(),
  datastore: new MemoryDatastore(),
  blockBrokers: [bitswap()],
  routers: mode ? [libp2pRouting(libp2p)] : []
})
await helia.start()
const files = unixfs(helia)

const orders = {
  async connect (address) {
    const { remotePeer } = await libp2p.dial(multiaddr(address))
    // A server enters the routing table shortly after the connection.
    while (mode && await libp2p.services.dht.routingTable.find(remotePeer) == null) {
      await setTimeout(10)
    }
    return 0
  },
  async peers () {
    return libp2p.getPeers().join(' ')
  },
  async provide (cid) {
    await helia.routing.provide(CID.parse(cid))
    return 0
  },
  async find (cid) {
    const found = helia.routing.findProviders(CID.parse(cid))
    // The first, or none: the iterator does not end with the search.
    const { value } = await Promise.race([found.next(), setTimeout(5_000, {})])
    return value?.id ?? ''
  },
  async pin (cid) {
    for await (const _ of helia.pins.add(CID.parse(cid))) { /* each block, as it is held */ }
    return 0
  },
  async add (file) {
    return files.addByteStream(createReadStream(file), { cidVersion: 1, rawLeaves: true })
  },
  async get (cid, file) {
    await pipeline(Readable.from(files.cat(CID.parse(cid))), createWriteStream(file))
    return 0
  }
}

console.log('ID', libp2p.peerId.toString())
for await (const line of createInterface({ input: process.stdin })) {
  const [order, ...given] = line.split(' ')
  if (order === 'quit') break
  const result = await orders[order](...given).catch(error => `failed: ${error}`)
  console.log(order.toUpperCase(), String(result))
}
process.exit(0)
