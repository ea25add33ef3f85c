// Two JavaScript clients of Kubo's RPC API against any server.
// Usage: kubo-clients.mjs http://HOST:PORT [MULTIADDRESS of another node]

// Node 20 lacks it, and the clients need it.
if (!Promise.withResolvers) {
  Promise.withResolvers = function () {
    let resolve, reject
    const promise = new Promise((a, b) => { resolve = a; reject = b })
    return { promise, resolve, reject }
  }
}
const { create: createKubo } = await import('kubo-rpc-client')
const { create: createHttp } = await import('ipfs-http-client')
const { CID } = await import('multiformats/cid')
const api = process.argv[2]; const swarm2 = process.argv[3]
const all = async (it) => { const r=[]; for await (const x of it) r.push(x); return r }
const cat = async (it) => Buffer.concat(await all(it))
let fails = 0
async function t (name, f) { try { const r = await f(); console.log('ok  ', name, r===undefined?'':String(typeof r==='string'?r:JSON.stringify(r)).slice(0,140)) } catch (e) { fails++; console.log('FAIL', name, e.name, e.message, (e.stack||'').split('\n')[1]) } }
const eq=(a,b)=>{ if (String(a)!==String(b)) throw new Error(`${a} != ${b}`) }
for (const [lib, create] of [['kubo-rpc-client', createKubo], ['ipfs-http-client', createHttp]]) {
  console.log('==', lib)
  const c = create({ url: api })
  let big = Buffer.alloc(3000000); for (let i=0;i<big.length;i++) big[i]=(i*7+(i>>8))&255
  let root
  await t('id', async () => (await c.id()).id.toString())
  await t('version', async () => (await c.version()))
  await t('add v1 raw', async () => { const r = await c.add('hello world', { cidVersion: 1, rawLeaves: true }); eq(r.cid,'bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e'); return r })
  await t('add v0', async () => { const r = await c.add('Hello Worlds!\n'); eq(r.cid,'QmVr26fY1tKyspEJBniVhqxQeEjhF78XerGiqWAwraVLQH') })
  await t('add big progress', async () => { const p=[]; const r = await c.add(big, { progress: (n)=>p.push(n) }); root=r.cid; eq(p.at(-1), big.length); return p.length })
  await t('addAll dir', async () => { const r = await all(c.addAll([{path:'d/a.txt',content:'A'},{path:'d/s/b.txt',content:'B'}], {wrapWithDirectory:true, pin:true})); return r.map(x=>x.path+' '+x.cid) })
  await t('add meta', async () => { const r = await c.add({path:'m', content:'x', mode: 0o640, mtime: {secs: 1604320482, nsecs: 5}}, {preserveMode:true, preserveMtime:true}); return r })
  await t('cat', async () => { eq((await cat(c.cat(root))).equals(big), true) })
  await t('cat range', async () => { eq((await cat(c.cat(root,{offset:1000000,length:50}))).equals(big.subarray(1000000,1000050)), true) })
  await t('get', async () => { const n=(await cat(c.get(root))).length; if (n<big.length) throw new Error('short '+n); return n })
  await t('ls', async () => { const d = await all(c.addAll([{path:'d/a.txt',content:'A'},{path:'d/s/b.txt',content:'B'}])); const l = await all(c.ls(d.at(-1).cid)); return l.map(x=>`${x.name} ${x.type} ${x.size}`).join(',') })
  await t('pin.add', async () => (await c.pin.add(root, {name:'n'})).toString())
  await t('pin.addAll', async () => (await all(c.pin.addAll([root]))).length)
  await t('pin.ls', async () => (await all(c.pin.ls())).length)
  await t('pin.ls arg', async () => (await all(c.pin.ls({paths:[root]}))).map(x=>x.type).join())
  await t('pin.ls names', async () => (await all(c.pin.ls({names:true, type:'recursive'}))).map(x=>x.name).join())
  await t('pin.rm', async () => (await c.pin.rm(root)).toString())
  await t('pin.rm again fails', async () => { try { await c.pin.rm(root) } catch (e) { return e.message } throw new Error('no error') })
  await t('block.put', async () => (await c.block.put(Buffer.from('blk'))).toString())
  await t('block.get', async () => Buffer.from(await c.block.get(CID.parse('bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e'))).toString())
  await t('block.stat', async () => (await c.block.stat(root)).size)
  await t('block.rm', async () => { const k = await c.block.put(Buffer.from('blk2')); return (await all(c.block.rm(k))).length })
  let node
  await t('dag.put', async () => { node = await c.dag.put({a:[1,2,{b:root}], s:'x<y'}); return node.toString() })
  await t('dag.get', async () => { const r=(await c.dag.get(node)).value; eq(r.a[2].b, root); return r.s })
  await t('dag.get path', async () => (await c.dag.get(node,{path:'a/1'})).value)
  await t('dag.put dag-pb', async () => (await c.dag.put(new Uint8Array([10,2,8,1]),{storeCodec:'dag-pb', inputCodec:'dag-pb', hashAlg:'sha2-256'})).toString())
  await t('dag.resolve', async () => JSON.stringify(await c.dag.resolve(node, {path:'a'})))
  let car
  await t('dag.export', async () => { car = await cat(c.dag.export(root)); return car.length })
  await t('dag.import', async () => (await all(c.dag.import([car]))).map(r=>r.root.cid.toString()).join())
  await t('refs', async () => (await all(c.refs(root,{recursive:true}))).length)
  await t('refs.local', async () => (await all(c.refs.local())).length)
  await t('repo.stat', async () => (await c.repo.stat()).numObjects.toString())
  await t('repo.version', async () => String(await c.repo.version()))
  await t('repo.gc', async () => (await all(c.repo.gc())).length)
  await t('stats.repo', async () => (await c.stats.repo()).repoSize.toString())
  await t('swarm.peers', async () => (await c.swarm.peers()).length)
  if (swarm2) {
    const { multiaddr } = await import('@multiformats/multiaddr')
    await t('swarm.connect', async () => JSON.stringify(await c.swarm.connect(multiaddr(swarm2))))
    await t('swarm.peers', async () => JSON.stringify((await c.swarm.peers({verbose:true})).map(p=>p.direction)))
    await t('id of a connected node', async () => { const peer = multiaddr(swarm2).toString().split('/p2p/')[1]; for (let tries = 0; ; tries++) { try { const r = await c.id({ peerId: peer }); eq(r.id, peer); if (!r.publicKey || !r.addresses.length || !r.protocols.length) throw new Error('incomplete'); return r.agentVersion } catch (e) { if (tries === 50) throw e; await new Promise(resolve => setTimeout(resolve, 100)) } } })
    await t('swarm.disconnect', async () => JSON.stringify(await c.swarm.disconnect(multiaddr(swarm2))))
  }
  await t('swarm.addrs', async () => (await c.swarm.addrs()).length)
  await t('swarm.localAddrs', async () => (await c.swarm.localAddrs()).length)
  await t('resolve', async () => await c.resolve('/ipfs/'+root))
  await t('config.getAll', async () => Object.keys(await c.config.getAll()).join())
  await t('config.get', async () => { eq(await c.config.get('Identity.PeerID'), (await c.id()).id); eq(Array.isArray(await c.config.get('Addresses.Swarm')), true) })
  await t('config.get of an unknown key fails', async () => { try { await c.config.get('Bananas') } catch (e) { return e.message } throw new Error('no error') })
  await t('config.set', async () => { await c.config.set('Gateway.RootRedirect', '/'+lib); eq(await c.config.get('Gateway.RootRedirect'), '/'+lib) })
  await t('config.set of a number', async () => { await c.config.set('Swarm.ConnMgr.HighWater', 95); eq(await c.config.get('Swarm.ConnMgr.HighWater'), 95) })
  await t('config.profiles.apply, dry run', async () => { const d = await c.config.profiles.apply('lowpower', { dryRun: true }); eq(d.updated.Swarm.ConnMgr.LowWater, 20); eq(await c.config.get('Swarm.ConnMgr.HighWater'), 95) })
  await t('commands', async () => (await c.commands()).Name)
  await t('key.list', async () => JSON.stringify(await c.key.list()))
  await t('bitswap.stat', async () => JSON.stringify((await c.bitswap.stat()).peers.length))
  await t('timeout', async () => { try { await cat(c.cat('QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnLOLk'.replace('LOLk','GxyE'), {timeout:300})) } catch (e) { return e.name+' '+e.message } throw new Error('no error') })
}
console.log(fails ? `${fails} FAILED` : 'ALL OK'); process.exit(fails?1:0)
