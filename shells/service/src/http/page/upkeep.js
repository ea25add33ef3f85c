// Upkeep of what the peers hold: the rebalancing of copies, and the scrub of stored blocks.

import {action, el, fact, fill, tag, toast} from './dom.js'
import {json} from './api.js'
import {bytes, number, plural, short, time} from './format.js'

const sum = (list, field) => list.reduce((total, one) => total + (one[field] || 0), 0)
const rate = limit => limit ? bytes(limit) + '/s' : 'no limit'

function name(peer) {
  return el('a', {href: '#/peers/' + encodeURIComponent(peer.peer)}, peer.peername || short(peer.peer))
}

function table(heads, rows) {
  return el('div.scroll', null, el('table.stack', null,
    el('thead', null, el('tr', null, heads.map(head => el('th', null, head)))), el('tbody', null, rows)))
}

function moves(peer) {
  if (peer.error) return tag(peer.error, 'bad')
  if (peer.is_moving) return tag(`moved ${number(peer.moved)} of ${number(peer.planned)}`, 'accent')
  return peer.takes_pins ? el('span.sub', null, 'idle') : tag('takes no pins', 'warn')
}

function balance(state, changed) {
  const change = (label, method, path, text, kind) => action(label, async () => {
    await json(method, path)
    toast(text)
    changed()
  }, kind)
  const run = state.running_since
  const waiting = sum(state.peers, 'copies_waiting')
  const progress = run
    ? `${plural(state.done.length, 'peer')} of ${number(state.peers.length)} done since ${time(run)}`
    : 'none was asked for'
  return el('section.card', {id: 'rebalance'},
    el('div.row', null, el('h2', null, 'Rebalancing'), el('span.tags', null,
      tag(run ? 'running' : state.peers.some(peer => peer.is_moving) ? 'moving' : 'idle', run ? 'accent' : ''),
      state.automatic ? tag('automatic', 'good') : null)),
    el('dl.facts', null,
      fact('Moves needed', number(state.moves)),
      fact('Run', progress),
      fact('Copies waiting', number(waiting)),
      fact('Limits', `${plural(state.moves_max, 'move')} and ${rate(state.bytes_per_second)} of a peer; ` +
        `${plural(state.moves_total_max, 'move')} and ${rate(state.total_bytes_per_second)} in total`)),
    table(['Peer', 'Copies', 'Share', 'Waiting', ''], state.peers.map(peer => el('tr', null,
      el('td', null, name(peer)), el('td', null, number(peer.copies)), el('td', null, number(peer.target)),
      el('td', null, number(peer.copies_waiting)), el('td', null, moves(peer))))),
    el('div.actions.for-admin', null,
      run ? change('Stop', 'DELETE', '/rebalance', 'The rebalancing has ended')
        : change('Rebalance now', 'POST', '/rebalance', 'The rebalancing has started'),
      state.automatic
        ? change('Only on request', 'POST', '/rebalance/settings?automatic=false', 'Copies move on request only')
        : change('Automatically', 'POST', '/rebalance/settings?automatic=true', 'Copies move whenever a peer is off its share')))
}

const SCRUB_STATES = {running: 'accent', paused: 'warn', unreachable: 'bad'}

function cycle(found) {
  if (!found) return el('span.sub', null, 'none')
  const damage = found.damaged || found.incomplete
  return [
    el('div', null, plural(found.blocks, 'block') + (found.bytes ? ', ' + bytes(found.bytes) : '')),
    damage ? tag(`${plural(found.damaged, 'damaged block')}, ${plural(found.incomplete, 'incomplete pin')}`, 'warn') : null,
    el('div.sub', null, new Date(found.ended).getFullYear() > 1 ? time(found.ended) : 'since ' + time(found.since))
  ]
}

function health(scrub) {
  const left = scrub.unmended_blocks + scrub.unmended_pins
  const mended = scrub.mended_blocks + scrub.mended_pins
  return [
    left ? tag(`${plural(left, 'block or pin', 'blocks and pins')} not mended`, 'bad') : null,
    left ? el('div.sub.mono', null, (scrub.unmended || []).join(' ')) : null,
    mended ? el('div.sub', null, number(mended) + ' mended') : null,
    scrub.error ? tag(scrub.error, 'bad') : null
  ]
}

function scrubs(state, changed) {
  const change = (label, what, text) => action(label, async () => {
    await json('POST', '/ipfs/scrub?action=' + what)
    toast(text)
    changed()
  })
  const peers = Object.values(state.peer_map || {}).sort((a, b) => a.peername.localeCompare(b.peername))
  const isPaused = peers.some(peer => peer.state === 'paused')
  return el('section.card', {id: 'scrub'},
    el('h2', null, 'Scrub'),
    table(['Peer', 'State', 'Running cycle', 'Last cycle', 'Damage'], peers.map(peer => el('tr', null,
      el('td', null, name(peer)),
      el('td', null, tag(peer.state, SCRUB_STATES[peer.state]), el('div.sub', null, 'next ' + time(peer.next))),
      el('td', null, cycle(peer.cycle)), el('td', null, cycle(peer.last)), el('td', null, health(peer))))),
    el('div.actions.for-admin', null,
      change('Scrub now', 'start', 'All peers check what they hold'),
      isPaused ? change('Resume', 'resume', 'The scrubs go on') : change('Pause', 'pause', 'The scrubs are paused')))
}

// Shows both, and returns a function that reads them again.
export function upkeep(place) {
  async function refresh() {
    const [rebalance, scrub] = await Promise.all([json('GET', '/rebalance'), json('GET', '/ipfs/scrub')])
    fill(place, balance(rebalance, refresh), scrubs(scrub, refresh))
  }
  return refresh
}
