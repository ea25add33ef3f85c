// All calls of the most used JavaScript client of the cluster's REST API.
// Usage: cluster-client.mjs http://HOST:PORT http://HOST:PORT, of the REST API and of the peer's IPFS node.
import * as cluster from '@nftstorage/ipfs-cluster'

const config = { url: new URL(process.argv[2]) }
let failed = 0
async function check (name, call, holds) {
  try {
    const result = await call()
    if (!holds(result)) throw new Error('unexpected: ' + JSON.stringify(result))
    console.log('ok  ', name)
    return result
  } catch (error) {
    failed++
    console.log('FAIL', name, error.name, error.message, (error.stack || '').split('\n')[1])
  }
}
const file = (name, text) => new File([text], name)
const added = await check('add', () => cluster.add(config, file('a.txt', 'hello'), { name: 'n', metadata: { k: 'v' } }),
  result => result.cid && result.name === 'a.txt')
const cid = added.cid
await check('addDirectory', () => cluster.addDirectory(config, [file('d/a', 'A'), file('d/s/b', 'B')]),
  result => result.length >= 3 && result.every(entry => entry.cid))
const exported = await fetch(`${process.argv[3]}/api/v0/dag/export?arg=${cid}`, { method: 'POST' })
const car = new Blob([await exported.arrayBuffer()])
await check('addCAR', () => cluster.addCAR(config, car, { name: 'car' }), result => String(result.cid) === String(cid))
await check('pin', () => cluster.pin(config, cid, { name: 'again', replicationFactorMin: 1, replicationFactorMax: 1 }),
  result => result.cid === cid || String(result.cid) === String(cid))
await check('status', () => cluster.status(config, cid), result => Object.keys(result.peerMap).length > 0)
await check('statusAll', () => cluster.statusAll(config), result => result.length >= 2)
await check('statusAll filter', () => cluster.statusAll(config, { filter: ['pinned', 'pinning', 'pin_queued'] }),
  result => result.length >= 2)
await check('allocation', () => cluster.allocation(config, cid), result => result.name === 'again')
await check('recover', () => cluster.recover(config, cid), result => Object.keys(result.peerMap).length > 0)
await check('id', () => cluster.info(config), result => result.id && result.addresses.length > 0)
await check('version', () => cluster.version(config), result => typeof result === 'string' && result !== '')
await check('peerList', () => cluster.peerList(config), result => result.length > 0)
await check('metricNames', () => cluster.metricNames(config), result => result.includes('freespace'))
await check('unpin', () => cluster.unpin(config, cid), result => String(result.cid) === String(cid))
await check('an invalid CID', () => cluster.pin(config, 'nonsense').then(() => 'pinned', error => error.message),
  result => result !== 'pinned')
console.log(failed ? `${failed} FAILED` : 'ALL OK')
process.exit(failed ? 1 : 0)
