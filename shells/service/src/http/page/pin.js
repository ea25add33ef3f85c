// One pin: its options, its status at each peer, and what can be done with it.

import {action, confirm, el, fact, fill, tag, toast} from './dom.js'
import {json, lines} from './api.js'
import {listen} from './live.js'
import {bytes, ownerName, owners, plural, short, statusKind, statusText, time} from './format.js'
import {meter} from './plot.js'
import {describe} from './overview.js'

const INTERVAL_MS = 3000
const HISTORY = 30
// Statuses whose time is that of the answer.
const TIMELESS = ['remote', 'unpinned', 'cluster_error']
// Pause of the stream of events after which all earlier ones are there.
const PAUSE_MS = 1000

// Parameters that keep what a pin has: a pin request replaces all options.
function kept(pin) {
  const query = new URLSearchParams()
  if (pin.name) query.set('name', pin.name)
  query.set('mode', pin.mode)
  query.set('replication-min', pin.replication_factor_min)
  query.set('replication-max', pin.replication_factor_max)
  if (new Date(pin.expire_at).getFullYear() > 1) query.set('expire-at', pin.expire_at)
  for (const [key, value] of Object.entries(pin.metadata || {})) {
    // Owners are kept by the cluster.
    if (!key.startsWith('owner/')) query.set('meta-' + key, value)
  }
  if ((pin.origins || []).length) query.set('origins', pin.origins.join(','))
  return query
}

// A direct pin is made through a path, as in the Go peer.
function target(pin) {
  return (pin.mode === 'direct' ? '/pins/ipfs/' : '/pins/') + encodeURIComponent(pin.cid)
}

// Blocks and bytes of a transfer, as a share of its size if the root states one.
function transferred({blocks, bytes: fetched, total_bytes: total, updated}) {
  const size = total ? ' of at most ' + bytes(total) : ''
  return el('div.sub.transfer', null, `${bytes(fetched)}${size} fetched, ${plural(blocks, 'block')} held, last progress ${time(updated)}`,
    total ? el('div.meter', null, meter(fetched / total)) : null)
}

function statusRows(info, names) {
  const peers = Object.entries(info.peer_map || {}).sort((a, b) => (a[1].status === 'remote') - (b[1].status === 'remote') ||
    a[1].peername.localeCompare(b[1].peername))
  return peers.map(([id, peer]) => el('tr', null,
    el('td', null, el('a.name', {href: '#/peers/' + encodeURIComponent(id)}, peer.peername || names.get(id) || short(id)),
      el('div.sub.mono', null, short(id))),
    el('td', null, tag(statusText(peer.status), statusKind(peer.status)),
      peer.error ? el('div.sub', null, peer.error) : null,
      new Date(peer.retry_at).getFullYear() > 1 ? el('div.sub', null, 'Next attempt: ' + time(peer.retry_at)) : null,
      peer.transfer ? transferred(peer.transfer) : null),
    el('td.number', null, peer.attempt_count || ''),
    el('td', null, el('span.sub', null, time(peer.timestamp)))))
}

// Returns the last events of a pin that the peer still keeps. Their stream does not end: it is left when it pauses.
async function earlierEvents(cid) {
  const found = []
  const abort = new AbortController()
  let pause = setTimeout(() => abort.abort(), PAUSE_MS)
  try {
    for await (const event of lines('/events?after=0&cid=' + encodeURIComponent(cid), {signal: abort.signal})) {
      clearTimeout(pause)
      pause = setTimeout(() => abort.abort(), PAUSE_MS)
      if (event.cid) found.push(event)
    }
  } catch { /* It was left; or the peer has no stream to spare, and the states are shown alone. */ }
  clearTimeout(pause)
  return found.slice(-HISTORY)
}

// Returns the history of a pin, the newest first: its events, and the request and the states that no event reports.
function historyOf(cid, events, pin, info) {
  const known = [...events.values()]
  const peers = info.peer_map || {}
  if (pin && !known.some(event => event.type === 'pin_added' || event.type === 'pin_changed')) {
    known.push({type: 'pin_added', cid, name: pin.name, time: pin.timestamp})
  }
  for (const [peer, {status, error, timestamp}] of Object.entries(peers)) {
    const isKnown = known.some(event => event.type === 'status' && event.peer === peer && event.status === status)
    if (!TIMELESS.includes(status) && !isKnown) known.push({type: 'status', cid, peer, status, error, time: timestamp})
  }
  return known.filter(event => new Date(event.time).getFullYear() > 1)
    .sort((a, b) => new Date(b.time) - new Date(a.time)).slice(0, HISTORY)
    .map(event => ({...event, peername: event.peername || (peers[event.peer] || {}).peername}))
}

// Who holds a pin, with the name and the size as each gave them; the rest of the metadata is shown as it is.
function holders(pin) {
  const metadata = pin.metadata || {}
  const names = owners(pin)
  const isOf = key => names.some(name => key === 'owner/' + name || key.startsWith('owner/' + name + '/'))
  const shown = names.map(name => {
    const given = metadata[`owner/${name}/name`]
    const size = metadata[`owner/${name}/bytes`]
    return el('div', {'data-owner': name}, el('b', null, ownerName(name)), given ? ', as ' + given : null, size ? ', uploaded ' + bytes(size) : null)
  })
  const rest = Object.entries(metadata).filter(([key]) => !isOf(key))
  return [shown, rest.map(([key, value]) => el('div.mono', null, key + ' = ' + value))]
}

// `latest` returns the pin as it is when a form is sent.
function forms(latest, changed) {
  const pin = latest()
  const every = pin.replication_factor_min === -1
  const min = el('input', {id: 'min', type: 'number', min: 1, value: every ? '' : pin.replication_factor_min, placeholder: 'every peer'})
  const max = el('input', {id: 'max', type: 'number', min: 1, value: every ? '' : pin.replication_factor_max, placeholder: 'every peer'})
  const expiry = el('input', {id: 'expiry', type: 'datetime-local'})
  const save = async change => {
    const query = kept(latest())
    change(query)
    await json('POST', target(latest()) + '?' + query)
    toast('The pin was changed')
    changed()
  }
  const submit = run => async event => {
    event.preventDefault()
    try { await run() } catch (error) { toast(error.message, 'bad') }
  }
  return el('div.two', null,
    el('section.card', null, el('h2', null, 'Copies'),
      el('form.line', {
        onsubmit: submit(() => save(query => {
          query.set('replication-min', min.value || -1)
          query.set('replication-max', max.value || min.value || -1)
        }))
      },
      el('label', {for: 'min'}, 'Minimum', min), el('label', {for: 'max'}, 'Maximum', max),
      el('button', {type: 'submit'}, 'Change copies'))),
    el('section.card', null, el('h2', null, 'Expiry'),
      el('form.line', {
        onsubmit: submit(() => save(query => {
          query.delete('expire-at')
          if (expiry.value) query.set('expire-at', new Date(expiry.value).toISOString())
        }))
      },
      el('label', {for: 'expiry'}, 'Unpin at (empty: never)', expiry),
      el('button', {type: 'submit'}, 'Change expiry'))))
}

export function pin(place, cid) {
  let ended = false
  let timer = null
  let known = null
  let edited = false
  const title = el('h1', null, 'Pin')
  const facts = el('div')
  const statuses = el('tbody')
  const history = el('ul.list', {id: 'history'})
  const events = new Map()
  let asked = false
  const buttons = el('div.actions.for-pin')
  const forming = el('div.for-pin')
  forming.addEventListener('input', () => { edited = true })
  fill(place,
    el('div.head', null, el('div', null, el('p', null, el('a', {href: '#/pins'}, 'All pins')), title), buttons),
    facts,
    el('section.card', null, el('h2', null, 'Status at the peers'), el('div.scroll', null, el('table.stack', null,
      el('thead', null, el('tr', null, el('th', null, 'Peer'), el('th', null, 'Status'), el('th.number', null, 'Failed attempts'), el('th', null, 'Since'))),
      statuses))),
    forming,
    el('section.card', null, el('h2', null, 'History'), history))
  fill(history, el('li', null, el('span.sub', null, 'Nothing yet.')))

  async function unpin() {
    const name = known && known.name ? known.name : cid
    if (!await confirm('Unpin this content?', `The cluster will no longer keep ${name}. Its blocks are deleted by the next garbage collection.`, 'Unpin')) return
    await json('DELETE', '/pins/' + encodeURIComponent(cid))
    toast('Unpinned')
    refresh()
  }

  function show(found) {
    const changed = JSON.stringify(found) !== JSON.stringify(known)
    known = found
    if (!changed) return
    fill(title, found ? found.name || 'Pin without a name' : 'Not in the pinset')
    if (!found) {
      fill(facts, el('section.card', null, el('dl.facts', null, fact('CID', el('code', null, cid)))))
      fill(buttons, action('Pin', async () => { await json('POST', '/pins/' + encodeURIComponent(cid)); refresh() }, '.main'))
      fill(forming)
      edited = false
      return
    }
    fill(buttons,
      action('Recover', async () => { await json('POST', '/pins/' + encodeURIComponent(cid) + '/recover'); toast('Failed copies are tried again'); refresh() }),
      action('Unpin', unpin, '.danger'))
    const [holding, metadata] = holders(found)
    fill(facts, el('section.card', null, el('dl.facts', null,
      fact('CID', el('code', {id: 'cid'}, cid), ' ', action('Copy', () => navigator.clipboard.writeText(cid), '.quiet')),
      fact('Mode', found.mode),
      fact('Copies', found.replication_factor_min === -1 ? 'every peer' : `${found.replication_factor_min} to ${found.replication_factor_max}`),
      fact('Pinned', time(found.timestamp)),
      fact('Expires', time(found.expire_at)),
      holding.length ? fact('Owners', ...holding) : null,
      metadata.length ? fact('Metadata', ...metadata) : null,
      (found.origins || []).length ? fact('Origins', found.origins.map(origin => el('div.mono', null, origin))) : null)))
    // What is being entered stays.
    if (!edited) fill(forming, forms(() => known, () => { edited = false; known = null; refresh() }))
  }

  async function refresh() {
    // Of two refreshes at once, the timer of one outlives the view.
    if (ended) return
    clearTimeout(timer)
    const path = '/' + encodeURIComponent(cid)
    try {
      const [found, info] = await Promise.all([
        json('GET', '/allocations' + path).catch(error => { if (error.status === 404) return null; throw error }),
        json('GET', '/pins' + path)
      ])
      if (ended) return
      show(found)
      const rows = statusRows(info, new Map())
      fill(statuses, rows)
      const past = historyOf(cid, events, found, info).map(event =>
        el('li', null, el('div.row', null, el('span', null, ...describe(event)), el('span.time', null, time(event.time)))))
      fill(history, past.length ? past : el('li', null, el('span.sub', null, 'Nothing yet.')))
      if (!asked) {
        asked = true
        earlierEvents(cid).then(found => { found.forEach(remember); if (found.length && !ended) refresh() })
      }
    } catch (error) {
      if (!ended) fill(facts, el('p.notice.bad', null, error.message))
    }
    if (!ended) timer = setTimeout(refresh, INTERVAL_MS)
  }

  // Events of both streams have the same ids.
  function remember(event) {
    events.set(event.id, event)
    const oldest = Math.min(...events.keys())
    if (events.size > HISTORY) events.delete(oldest)
  }

  const unlisten = listen(event => {
    if (event.cid === cid) remember(event)
    if (event.cid === cid || event.type.startsWith('peer_')) refresh()
  })
  refresh()
  return () => { ended = true; clearTimeout(timer); unlisten() }
}
