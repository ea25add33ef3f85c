// Overview: peers, alerts, copies that are missing, the rate and the latency of commits, recent events.

import {el, figure, fill, tag} from './dom.js'
import {json, metrics} from './api.js'
import {listen, recentEvents} from './live.js'
import {bytes, clock, number, plural, seconds, short, statusText} from './format.js'
import {meter, plot} from './plot.js'

const INTERVAL_MS = 5000
const PROBLEMS = 10

// One line for an event.
export function describe(event) {
  const peer = event.peername || short(event.peer || '')
  const pin = event.name || short(event.cid || '')
  const link = event.cid ? el('a', {href: '#/pins/' + encodeURIComponent(event.cid)}, pin) : null
  switch (event.type) {
    case 'pin_added': return ['Pinned ', link]
    case 'pin_changed': return ['Changed pin ', link]
    case 'pin_removed': return ['Unpinned ', link]
    case 'status': return [link, ' is ', tag(statusText(event.status)), ' at ', peer, event.error ? ': ' + event.error : '']
    case 'peer_added': return ['Peer ', peer, ' joined']
    case 'peer_removed': return ['Peer ', peer, ' was removed']
    case 'peer_up': return ['Peer ', peer, ' is up']
    case 'peer_down': return ['Peer ', peer, ' is down']
    case 'peer_connected': return ['Connected to peer ', peer]
    case 'peer_disconnected': return ['Lost the connection to peer ', peer]
    case 'leader': return event.peer ? ['Peer ', peer, ' leads'] : ['There is no leader']
    case 'alert': return ['Alert: ', event.metric, ' of peer ', peer, ' expired']
    case 'alert_cleared': return ['Alert cleared: ', event.metric, ' of peer ', peer]
    case 'statuses_lost': return ['The statuses at peer ', peer, ' are not followed: ', event.error]
    case 'lost': return ['Some events were missed']
    default: return [event.type.replaceAll('_', ' ')]
  }
}

function feed(names) {
  const items = recentEvents().slice(0, 30).map(event => {
    const named = event.peername || !event.peer ? event : {...event, peername: names.get(event.peer)}
    return el('li', null, el('div.row', null, el('span', null, ...describe(named)), el('span.time', null, clock(event.time))))
  })
  return items.length ? el('ul.list.feed', {tabindex: 0, 'aria-label': 'Recent events'}, items)
    : el('p.empty', null, 'Changes appear here as they happen.')
}

function peerRows(found, ready) {
  const byPeer = (name, value = sample => sample.value) =>
    new Map(found.all(name).map(sample => [sample.labels.peer, value(sample)]))
  const free = byPeer('peer_free_bytes')
  const linked = byPeer('peer_connected')
  const lag = byPeer('raft_peer_lag_entries')
  const votes = byPeer('peer_voter')
  const held = byPeer('peer_pins_held')
  const queued = byPeer('peer_pins_queued')
  const versions = byPeer('peer_info', sample => sample.labels.version)
  const most = Math.max(...free.values(), 1)
  const byName = (a, b) => a.labels.peername.localeCompare(b.labels.peername)
  return found.all('peer_up').sort(byName).map(({labels, value}) => {
    const id = labels.peer
    const state = !value ? tag('down', 'bad') : linked.get(id) ? tag('up', 'good') : tag('not connected', 'warn')
    return el('tr', null,
      el('td', null,
        el('a.name', {href: '#/peers/' + encodeURIComponent(id)}, labels.peername || short(id)),
        el('div.sub.mono', null, short(id))),
      el('td', null, el('span.tags', null, state, ready.leader === id ? tag('leader', 'accent') : null,
        votes.get(id) ? tag('voter') : null)),
      el('td', null, versions.get(id) || '–'),
      el('td.number', null, number(held.get(id))),
      el('td.number', null, number(queued.get(id))),
      el('td.number', null, free.has(id) ? bytes(free.get(id)) + ' free' : '–',
        free.has(id) ? el('div.meter', null, meter(free.get(id) / most)) : null),
      el('td.number', null, lag.get(id) ? plural(lag.get(id), 'entry', 'entries') + ' behind' : value ? 'up to date' : '–'))
  })
}

// Problems that the peers report, errors first.
function warnings(ready, summary, names) {
  const notices = []
  if (!ready.ready) notices.push(el('p.notice.bad', {role: 'alert'}, 'This peer is not ready: ', (ready.reasons || []).join('; ')))
  const shown = summary.problems.slice(0, PROBLEMS)
  for (const {severity, peer, peername, problem} of shown) {
    const who = peername || names.get(peer) || short(peer)
    notices.push(el('p.notice.' + (severity === 'error' ? 'bad' : 'warn'), null,
      who ? [el('a', {href: '#/peers/' + encodeURIComponent(peer)}, who), ': '] : null, problem))
  }
  const more = summary.problems.length - shown.length
  if (more > 0) notices.push(el('p.notice.warn', null, plural(more, 'more problem')))
  return notices
}

function figures(found) {
  const up = found.all('peer_up')
  const living = up.filter(sample => sample.value).length
  const errors = found.one('pins_pin_error')
  const queue = found.one('pins_pin_queued')
  const missing = found.one('pins_under_replicated')
  return el('div.cards', null,
    figure('Peers up', living + ' of ' + up.length, number(found.one('raft_voters')) + ' voters', living < up.length),
    figure('Pins', number(found.one('pins')), number(found.one('pins_ipfs_pins')) + ' held here'),
    figure('Under-replicated', number(missing), missing ? 'repair is under way' : 'all have their copies', missing > 0),
    figure('Queue', number(queue), number(found.one('pins_pinning')) + ' in progress here'),
    figure('Failing', number(errors), errors ? 'oldest ' + seconds(found.one('oldest_failing_pin_seconds')) : 'none at this peer', errors > 0),
    figure('Stored', bytes(found.one('ipfs_repo_bytes')), 'of ' + bytes(found.one('ipfs_repo_max_bytes')) + ' here'))
}

function plots(found, history) {
  const latencies = history.latencies.map(value => value === null ? NaN : value)
  const rate = history.rates.at(-1)
  const latency = latencies.findLast(Number.isFinite)
  const minutes = Math.max(1, Math.round(history.rates.length * history.interval / 60))
  const note = minutes >= 59 ? 'last hour' : 'last ' + plural(minutes, 'minute')
  return el('div.two', null,
    el('section.card', null,
      el('div.row', null, el('h2', null, 'Changes per second'), el('b', null, rate === undefined ? '–' : rate.toFixed(1))),
      plot(history.rates, 'Changes per second, ' + note),
      el('div.sub', null, note + ', requested at this peer')),
    el('section.card', null,
      el('div.row', null, el('h2', null, 'Time to commit a change'), el('b', null, seconds(latency ?? NaN))),
      plot(latencies, 'Time to commit, ' + note),
      el('div.sub', null, 'log entries applied: ' + number(found.one('raft_applied_index')) + ', term ' + found.one('raft_term'))))
}

export function overview(place) {
  let ended = false
  let timer = null
  let soon = null
  let names = new Map()
  const top = el('div')
  const middle = el('div')
  const events = el('div')
  const version = el('p', null, 'Loading')
  fill(place,
    el('div.head', null, el('div', null, el('h1', null, 'Overview'), version)),
    top, middle,
    el('section.card', null, el('h2', null, 'Events'), events))

  async function refresh() {
    clearTimeout(timer)
    try {
      const [ready, summary, found, history, id] = await Promise.all([
        json('GET', '/health/ready', {accept: [503]}), json('GET', '/health/summary'), metrics(),
        json('GET', '/metrics/history'), json('GET', '/id')
      ])
      if (ended) return
      names = new Map(found.all('peer_up').map(sample => [sample.labels.peer, sample.labels.peername]))
      fill(version, 'Seen from ', el('b', null, id.peername), ', version ' + id.version)
      fill(top, warnings(ready, summary, names), figures(found))
      fill(middle, plots(found, history), el('section.card', null, el('h2', null, 'Peers'), el('div.scroll', null,
        el('table', null,
          el('thead', null, el('tr', null, el('th', null, 'Peer'), el('th', null, 'State'), el('th', null, 'Version'),
            el('th.number', null, 'Pins held'), el('th.number', null, 'Queue'), el('th.number', null, 'Space'), el('th.number', null, 'Log'))),
          el('tbody', null, peerRows(found, ready))))))
      fill(events, feed(names))
    } catch (error) {
      if (!ended) fill(version, error.message)
    }
    if (!ended) timer = setTimeout(refresh, INTERVAL_MS)
  }

  const unlisten = listen(event => {
    fill(events, feed(names))
    if (event.type === 'status') return
    clearTimeout(soon)
    soon = setTimeout(refresh, 400)
  })
  refresh()
  return () => { ended = true; clearTimeout(timer); clearTimeout(soon); unlisten() }
}

