// Pins: a listing in pages, read from the peer as far as it is shown.

import {el, fill, tag} from './dom.js'
import {all} from './api.js'
import {FIELDS, PAGE, search} from './search.js'
import {listen} from './live.js'
import {copies, ownerName, owners, plural, short, statusKind, statusText, time} from './format.js'

const STATUSES = ['', 'pinned', 'pinning', 'pin_queued', 'pin_error', 'unpin_queued', 'unpin_error', 'cluster_error']

// The statuses at all peers, with their numbers.
export function statusTags(info) {
  const counts = new Map()
  for (const {status} of Object.values(info.peer_map || {})) {
    if (status !== 'remote') counts.set(status, (counts.get(status) || 0) + 1)
  }
  return [...counts].map(([status, count]) => tag(count + ' ' + statusText(status), statusKind(status)))
}

function row(pin) {
  const status = el('td', null, el('span.sub', null, '…'))
  const link = '#/pins/' + encodeURIComponent(pin.cid)
  const holders = owners(pin)
  const element = el('tr', {'data-cid': pin.cid},
    el('td', null, el('a.name', {href: link}, pin.name || 'no name'), el('div.sub.mono', {title: pin.cid}, short(pin.cid)),
      holders.length ? el('div.sub.owners', null, 'Owned by ' + holders.map(ownerName).join(', ')) : null),
    status,
    el('td', null, pin.replication_factor_min === -1 || pin.replication_factor_min === undefined ? 'every peer'
      : pin.replication_factor_min + ' to ' + pin.replication_factor_max),
    el('td', null, el('span.sub', null, time(pin.timestamp || pin.created))))
  return {cid: pin.cid, element, status}
}

function showStatus(row, info) {
  const {held, wanted} = copies(info)
  fill(row.status, el('span.tags', null, statusTags(info)),
    wanted ? el('div.sub', null, held + ' of ' + plural(wanted, 'copy', 'copies')) : null)
}

export function pins(place) {
  const choice = (id, options) => el('select', {id}, options.map(([value, text]) => el('option', {value}, text)))
  const field = choice('field', FIELDS)
  const text = el('input', {id: 'search', type: 'search', autocomplete: 'off'})
  const status = choice('status', STATUSES.map(name => [name, name ? statusText(name) : 'any']))
  const peer = choice('peer', [['', 'any']])
  const order = choice('order', [['newest', 'Newest first'], ['oldest', 'Oldest first']])
  const body = el('tbody')
  const note = el('p', {role: 'status'})
  const more = el('button', {type: 'button', hidden: true, onclick: () => page()}, 'Show more')
  const rows = new Map()
  let source = null
  let abort = null
  let timer = null
  let ended = false

  fill(place,
    el('div.head', null, el('div', null, el('h1', null, 'Pins'), note), el('a.button.for-add', {href: '#/add'}, 'Add content')),
    el('section.card', null,
      el('form.line', {role: 'search', onsubmit: event => { event.preventDefault(); begin() }},
        el('label', {for: 'field'}, 'Search by', field),
        el('label.wide', {for: 'search'}, 'Text', text),
        el('label', {for: 'status'}, 'Status', status),
        el('label', {for: 'peer'}, 'Peer', peer),
        el('label', {for: 'order'}, 'Order', order),
        el('button.main', {type: 'submit'}, 'Search'))),
    el('section.card', null, el('div.scroll', null, el('table.stack', null,
      el('thead', null, el('tr', null, el('th', null, 'Pin'), el('th', null, 'Status'), el('th', null, 'Copies'), el('th', null, 'Since'))),
      body)), more))

  async function page() {
    more.disabled = true
    const stream = source
    const found = []
    try {
      while (found.length < PAGE) {
        const {done, value} = await stream.next()
        if (stream !== source) return
        if (done) break
        const made = row(value)
        if (value.peer_map) showStatus(made, value)
        rows.set(made.cid, made)
        found.push(made)
        body.append(made.element)
      }
      more.hidden = found.length < PAGE
      fill(note, rows.size ? plural(rows.size, 'pin') + (more.hidden ? '' : ' shown, there are more') : 'no pins match')
      if (!rows.size) fill(body, el('tr', null, el('td', {colspan: 4}, el('p.empty', null, 'No pins. Content that is added appears here.'))))
      await refresh(found.map(row => row.cid))
    } catch (error) {
      if (stream === source && error.name !== 'AbortError') fill(note, error.message)
    } finally {
      more.disabled = false
    }
  }

  async function refresh(cids) {
    for (let at = 0; at < cids.length; at += PAGE) {
      const some = cids.slice(at, at + PAGE)
      for (const info of await all('/pins?cids=' + some.join(','))) {
        const shown = rows.get(info.cid)
        if (shown && !ended) showStatus(shown, info)
      }
    }
  }

  function begin() {
    if (abort) abort.abort()
    abort = new AbortController()
    rows.clear()
    fill(body)
    more.hidden = true
    fill(note, 'Loading')
    const query = {field: field.value, text: text.value.trim(), status: status.value, peer: peer.value, order: order.value}
    source = search(query, abort.signal)
    page()
  }

  // Changed rows are read again together, twice a second at most.
  const changed = new Set()
  const unlisten = listen(event => {
    if (event.type === 'pin_removed' && rows.has(event.cid)) {
      rows.get(event.cid).element.remove()
      rows.delete(event.cid)
      return
    }
    if (event.type === 'pin_added' && isPlain() && rows.size < PAGE && !rows.has(event.cid)) begin()
    else if (rows.has(event.cid)) changed.add(event.cid)
    else if (event.type.startsWith('peer_')) for (const cid of rows.keys()) changed.add(cid)
    if (changed.size && !timer) {
      timer = setTimeout(() => {
        timer = null
        const cids = [...changed].filter(cid => rows.has(cid))
        changed.clear()
        refresh(cids).catch(() => {})
      }, 500)
    }
  })
  const isPlain = () => !text.value && !status.value && !peer.value && order.value === 'newest'
  for (const chosen of [status, peer, order]) chosen.addEventListener('change', begin)
  all('/peers').then(found => {
    for (const {id, peername} of found) peer.append(el('option', {value: id}, peername || short(id)))
  }).catch(() => {})
  begin()
  return () => { ended = true; unlisten(); clearTimeout(timer); if (abort) abort.abort() }
}

