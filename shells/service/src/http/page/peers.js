// Peers: all members, or one of them; drain, removal, recovery and garbage collection; upkeep of what they hold.

import {action, confirm, el, fact, fill, tag, toast} from './dom.js'
import {all, json, metrics} from './api.js'
import {listen} from './live.js'
import {bytes, number, plural, seconds, short, time} from './format.js'
import {upkeep} from './upkeep.js'

const INTERVAL_MS = 5000

async function collect() {
  const text = 'The IPFS node of each peer deletes all blocks that no pin needs. Content that was added without a pin is lost.'
  if (!await confirm('Collect garbage on all peers?', text, 'Collect garbage')) return
  const result = await json('POST', '/ipfs/gc')
  const peers = Object.values(result.peer_map || {})
  const removed = peers.reduce((sum, peer) => sum + (peer.keys || []).length, 0)
  const failed = peers.filter(peer => peer.error)
  if (failed.length) toast(failed.map(peer => peer.peername + ': ' + peer.error).join('; '), 'bad')
  else toast(plural(removed, 'block') + ' deleted')
}

async function recover() {
  const response = await all('/pins/recover', {method: 'POST'})
  toast(response.length ? plural(response.length, 'failed pin is', 'failed pins are') + ' tried again' : 'No pin fails')
}

async function remove(peer) {
  const name = peer.peername || short(peer.id)
  const text = `${name} (${peer.id}) leaves the cluster and stops. Its pins are allocated to other peers.`
  if (!await confirm(`Remove ${name}?`, text, 'Remove peer')) return
  await json('DELETE', '/peers/' + encodeURIComponent(peer.id))
  toast(name + ' was removed')
}

async function startDrain(peer) {
  const name = peer.peername || short(peer.id)
  const text = `All pins of ${name} (${peer.id}) move to other peers, and no new ones are allocated to it. Each copy leaves when its replacement is confirmed. Then it may be removed.`
  if (!await confirm(`Drain ${name}?`, text, 'Drain peer')) return
  await json('POST', '/drains/' + encodeURIComponent(peer.id))
  toast(name + ' is drained')
}

async function endDrain(peer) {
  await json('DELETE', '/drains/' + encodeURIComponent(peer.id))
  toast((peer.peername || short(peer.id)) + ' is not drained any more')
}

const DRAIN_STATES = {
  moving: 'pins move away', copying: 'copies wait for their replacements', blocked: 'the rest cannot move',
  done: 'empty: it may be removed', unreachable: 'does not answer'
}

function progress(drain) {
  const left = `${plural(drain.pins_left, 'pin')} of ${number(drain.pins_at_start)} left, ` +
    `${plural(drain.copies_waiting, 'copy', 'copies')} waiting`
  const time = drain.seconds_left ? `, about ${seconds(drain.seconds_left)} more` : ''
  const kind = drain.state === 'blocked' ? 'warn' : 'accent'
  return fact('Drain', tag(DRAIN_STATES[drain.state] || drain.state, kind), ' ', drain.error || left + time)
}

function stuck(drain) {
  return el('p.notice.warn', null, `${plural(drain.blocked, 'pin')} cannot move, such as `,
    el('code', null, (drain.blocked_cids || []).join(', ')), ': too few other peers are alive and have room')
}

function state(peer, found) {
  const up = found.one('peer_up', {peer: peer.id})
  if (peer.error) return tag(up ? 'does not answer' : 'down', 'bad')
  if (peer.ipfs && peer.ipfs.error) return tag('IPFS node fails', 'warn')
  return up === 0 ? tag('down', 'bad') : tag('up', 'good')
}

function card(peer, found, leader, drain, whole) {
  const free = found.one('peer_free_bytes', {peer: peer.id})
  const lag = found.one('raft_peer_lag_entries', {peer: peer.id})
  const seen = found.one('peer_last_contact_timestamp_seconds', {peer: peer.id})
  const addresses = list => (list || []).map(address => el('div.mono', null, address))
  const ipfs = peer.ipfs || {}
  return el('section.card', {'data-peer': peer.id},
    el('div.row', null,
      el('h2', null, el('a', {href: '#/peers/' + encodeURIComponent(peer.id)}, peer.peername || short(peer.id))),
      el('span.tags', null, state(peer, found), drain ? tag('drained', 'warn') : null,
        leader === peer.id ? tag('leader', 'accent') : null,
        found.one('peer_voter', {peer: peer.id}) ? tag('voter') : null)),
    peer.error ? el('p.notice.bad', null, peer.error) : null,
    drain && drain.blocked ? stuck(drain) : null,
    el('dl.facts', null,
      fact('Id', el('code', null, peer.id)),
      fact('Version', peer.version || '–'),
      drain ? progress(drain) : null,
      fact('Pins held', number(found.one('peer_pins_held', {peer: peer.id}))),
      fact('Queue', number(found.one('peer_pins_queued', {peer: peer.id}))),
      fact('Free space', Number.isFinite(free) ? bytes(free) : '–'),
      fact('Last contact', Number.isFinite(seen) ? time(new Date(seen * 1000).toISOString()) : '–'),
      Number.isFinite(lag) ? fact('Log', lag ? number(lag) + ' entries behind' : 'up to date') : null,
      fact('IPFS node', ipfs.error ? tag(ipfs.error, 'bad') : el('code', null, ipfs.id || '–')),
      whole ? fact('Addresses', addresses(peer.addresses)) : null,
      whole ? fact('IPFS addresses', addresses(ipfs.addresses)) : null),
    el('div.actions.for-admin', null,
      drain ? action('End drain', () => endDrain(peer)) : action('Drain', () => startDrain(peer)),
      action('Remove', () => remove(peer), '.danger')))
}

export function peers(place, only) {
  let ended = false
  let timer = null
  let soon = null
  const note = el('p', null, 'Loading')
  const list = el('div.two')
  const below = el('div.two')
  const refreshUpkeep = only ? null : upkeep(below)
  fill(place,
    el('div.head', null,
      el('div', null, only ? el('p', null, el('a', {href: '#/peers'}, 'All peers')) : null,
        el('h1', null, only ? 'Peer' : 'Peers'), note),
      el('div.actions', null, action('Recover failed pins', recover, '.for-pin'), action('Collect garbage', collect, '.for-admin'))),
    list, below)

  async function refresh() {
    clearTimeout(timer)
    try {
      const [known, found, ready, drains] = await Promise.all([
        all('/peers'), metrics(), json('GET', '/health/ready', {accept: [503]}), json('GET', '/drains')
      ])
      if (ended) return
      const names = new Map(found.all('peer_up').map(sample => [sample.labels.peer, sample.labels.peername]))
      const shown = known.filter(peer => !only || peer.id === only)
        .map(peer => ({...peer, peername: peer.peername || names.get(peer.id) || ''}))
        .sort((a, b) => a.peername.localeCompare(b.peername))
      fill(note, only && !shown.length ? 'is not a member' : only ? '' : plural(known.length, 'member'))
      fill(list, shown.map(peer => card(peer, found, ready.leader, drains.find(drain => drain.peer === peer.id), Boolean(only))))
      if (refreshUpkeep) await refreshUpkeep()
    } catch (error) {
      if (!ended) fill(note, error.message)
    }
    if (!ended) timer = setTimeout(refresh, INTERVAL_MS)
  }

  const unlisten = listen(event => {
    if (!event.type.startsWith('peer_') && event.type !== 'leader') return
    clearTimeout(soon)
    soon = setTimeout(refresh, 300)
  })
  refresh()
  return () => { ended = true; clearTimeout(timer); clearTimeout(soon); unlisten() }
}
