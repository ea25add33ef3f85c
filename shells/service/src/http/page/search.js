// Searches of the pinset: pages in the order of creation, read from the peer as far as they are shown.

import {all, lines, send} from './api.js'

export const PAGE = 50
// CIDs of one request for statuses: as many as a page asks for at once.
const ASKED = PAGE

// Ways to search by the text, with their labels.
export const FIELDS = [['ipartial', 'Name contains'], ['iprefix', 'Name starts with'], ['meta', 'Metadata (key=value)'], ['cid', 'CID']]

// A text that is hardly a name.
const CID = /^(Qm[1-9A-HJ-NP-Za-km-z]{44}|b[a-z2-7]{45,}|z[1-9A-HJ-NP-Za-km-z]{45,}|k[a-z0-9]{45,})$/

// Returns the conditions of a query as parameters of the API.
function conditions({field, text, peer, order}) {
  const found = {sort: order}
  if (peer) found.peer = peer
  if (!text) return found
  if (field === 'meta') {
    const at = text.indexOf('=')
    if (at < 1) throw new Error('metadata is searched as key=value')
    found['meta-' + text.slice(0, at)] = text.slice(at + 1)
  } else {
    found.name = text
    found['name-match'] = field
  }
  return found
}

// Yields the pins that meet the conditions. A page of the peer may have few although there are more.
async function * ordered(conditions, signal) {
  let cursor = null
  do {
    const asked = new URLSearchParams({...conditions, limit: PAGE})
    if (cursor) asked.set('cursor', cursor)
    const response = await send('GET', '/allocations?' + asked, {signal})
    cursor = response.headers.get('X-Next-Cursor')
    for (const line of (await response.text()).split('\n')) if (line.trim()) yield JSON.parse(line)
  } while (cursor)
}

async function * one(cid, signal) {
  const response = await send('GET', '/allocations/' + encodeURIComponent(cid), {signal, accept: [404]})
  if (response.ok) yield response.json()
}

// Yields the statuses among those of some pins that are as asked.
async function * withStatus(pins, query, signal) {
  let batch = []
  const statuses = () => all('/pins?filter=' + query.status + '&cids=' + batch.map(pin => pin.cid).join(','), {signal})
  for await (const pin of pins) {
    batch.push(pin)
    if (batch.length < ASKED) continue
    yield * (await statuses()).filter(info => isAt(query, info))
    batch = []
  }
  if (batch.length) yield * (await statuses()).filter(info => isAt(query, info))
}

const isAt = ({peer, status}, info) => !peer || (info.peer_map[peer] || {}).status === status

// Yields what a query finds: pins, or statuses if it has a status.
export async function * search(query, signal) {
  const {text, status} = query
  const byCid = text && (query.field === 'cid' || CID.test(text))
  if (status && !text) {
    // All peers list what has this status, in the order of CIDs.
    for await (const info of lines('/pins?filter=' + status, {signal})) if (isAt(query, info)) yield info
    return
  }
  // With a status, the peer is one that has it.
  const pins = byCid ? one(text, signal) : ordered(conditions(status ? {...query, peer: ''} : query), signal)
  if (status) yield * withStatus(pins, query, signal)
  else for await (const pin of pins) if (!byCid || holds(query.peer, pin)) yield pin
}

const holds = (peer, pin) => !peer || pin.replication_factor_min === -1 || (pin.allocations || []).includes(peer)
