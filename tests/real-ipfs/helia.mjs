// A Helia node on loopback, controlled by commands on standard input, one per line.
//
// Usage: helia.mjs PORT
// Commands: connect MULTIADDRESS, pin CID, add FILE, get CID FILE, quit. Each is answered with one line: its name
// in capitals, then the result.
import { createReadStream, createWriteStream } from 'node:fs'
import { createInterface } from 'node:readline'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'

import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { bitswap } from '@helia/block-brokers'
import { unixfs } from '@helia/unixfs'
import { Helia } from '@helia/utils'
import { identify } from '@libp2p/identify'
import { tcp } from '@libp2p/tcp'
import { multiaddr } from '@multiformats/multiaddr'
import { MemoryBlockstore } from 'blockstore-core'
import { MemoryDatastore } from 'datastore-core'
import { createLibp2p } from 'libp2p'
import { CID } from 'multiformats/cid'

// Without the services that look for peers on the Internet: it talks only to nodes that it is told to connect to.
const libp2p = await createLibp2p({
  addresses: { listen: [`/ip4/127.0.0.1/tcp/${process.argv[2]}`] },
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  services: { identify: identify() }
})
const helia = new Helia({
  libp2p,
  blockstore: new MemoryBlockstore(),
  datastore: new MemoryDatastore(),
  blockBrokers: [bitswap()],
  routers: []
})
await helia.start()
const files = unixfs(helia)

const orders = {
  async connect (address) {
    await libp2p.dial(multiaddr(address))
    return 0
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
  console.log(order.toUpperCase(), String(await orders[order](...given)))
}
process.exit(0)
