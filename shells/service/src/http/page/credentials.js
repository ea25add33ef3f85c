// Credentials: tokens with scopes, their limits and what they use; creation and revocation.

import {action, confirm, el, fact, fill, tag, toast} from './dom.js'
import {json} from './api.js'
import {bytes, number, plural, time} from './format.js'

const INTERVAL_MS = 5000
const MIB = 1024 * 1024
const SCOPES = [
  ['read', 'Read pins and peers'], ['pin', 'Pin and unpin'], ['add', 'Upload content'], ['metrics', 'Read metrics'],
  ['admin', 'Everything'], ['own', 'Restrict to own pins']
]

const path = credential => '/auth/credentials/' + encodeURIComponent(credential.id)
const isExpired = ({expire_at}) => new Date(expire_at).getFullYear() > 1 && new Date(expire_at) <= new Date()

async function revoke(credential, changed) {
  const owner = credential.scopes.includes('own') ? ' The pins that it holds stay.' : ''
  const text = `All peers refuse the token of ${credential.name} from now on.${owner}`
  if (!await confirm(`Revoke ${credential.name}?`, text, 'Revoke credential')) return
  await json('DELETE', path(credential))
  toast(credential.name + ' was revoked')
  changed()
}

// What an owner holds, with its limits.
function usage({pins, bytes: held}, credential) {
  const of = limit => limit ? ' of ' + limit : ''
  const lines = [number(pins) + of(credential.max_pins && number(credential.max_pins)) + ' pins']
  if (held !== undefined) lines.push(bytes(held) + of(credential.max_bytes && bytes(credential.max_bytes)) + ' uploaded')
  return lines.map(line => el('div', null, line))
}

function row(credential, used, changed) {
  const rate = credential.requests_per_second
  return el('tr', {'data-credential': credential.name},
    el('td', null, el('div.name', null, credential.name), el('div.sub.mono', null, credential.id)),
    el('td', null, el('span.tags', null, credential.scopes.map(scope => tag(scope, scope === 'admin' ? 'warn' : '')))),
    el('td', null, isExpired(credential) ? tag('expired', 'bad') : null, el('div.sub', null, time(credential.expire_at))),
    el('td', null, rate ? plural(rate, 'request') + ' per second' : el('span.sub', null, 'any number of requests')),
    used,
    el('td', null, el('span.sub', null, time(credential.created))),
    el('td', null, action('Revoke', () => revoke(credential, changed), '.danger')))
}

// Shows the use of each owner in its cell, one after the other: adding up the bytes of many pins takes a while.
async function showUsage(cells, isCurrent) {
  for (const [credential, cell] of cells) {
    if (!isCurrent()) return
    try {
      fill(cell, usage(await json('GET', path(credential) + '/usage'), credential))
    } catch (error) {
      fill(cell, el('span.sub', null, error.message))
    }
  }
}

function created(answer, close) {
  const {credential, token, required} = answer
  const card = el('section.card', {id: 'created', tabindex: -1},
    el('h2', null, 'Token of ' + credential.name),
    el('p.notice.warn', null, 'The token is shown only now: store it.'),
    required ? null : el('p.notice.warn', null, 'This API is open to everyone who reaches it. Set require_credentials on every peer.'),
    el('dl.facts', null, fact('Token', el('code', {id: 'token'}, token))),
    el('div.actions', null, action('Copy', () => navigator.clipboard.writeText(token)), action('Hide the token', close)))
  return card
}

function form(made) {
  const input = (id, kind, more) => el('input', {id, type: kind, autocomplete: 'off', ...more})
  const name = input('credential-name', 'text', {required: true, maxlength: 64})
  const expiry = input('credential-expiry', 'datetime-local')
  const rate = input('credential-rate', 'number', {min: 1, placeholder: 'no limit'})
  const pins = input('credential-pins', 'number', {min: 1, placeholder: 'no limit', disabled: true})
  const size = input('credential-bytes', 'number', {min: 1, placeholder: 'no limit', disabled: true})
  const boxes = SCOPES.map(([scope, label]) => {
    const box = el('input', {id: 'scope-' + scope, type: 'checkbox', value: scope})
    return {box, label: el('label.check', {for: box.id}, box, `${label} (${scope})`)}
  })
  const chosen = () => boxes.filter(({box}) => box.checked).map(({box}) => box.value)
  const element = el('form', {
    onchange: () => { pins.disabled = size.disabled = !chosen().includes('own') },
    onsubmit: async event => {
      event.preventDefault()
      try {
        const asked = {name: name.value, scopes: chosen()}
        if (expiry.value) asked.expire_at = new Date(expiry.value).toISOString()
        if (rate.value) asked.requests_per_second = Number(rate.value)
        if (pins.value && !pins.disabled) asked.max_pins = Number(pins.value)
        if (size.value && !size.disabled) asked.max_bytes = Number(size.value) * MIB
        made(await json('POST', '/auth/credentials', {body: JSON.stringify(asked)}))
        element.reset()
        pins.disabled = size.disabled = true
      } catch (error) {
        toast(error.message, 'bad')
      }
    }
  },
  el('div.fields', null,
    el('label', {for: name.id}, 'Name', name),
    el('label', {for: expiry.id}, 'Expires at (empty: never)', expiry),
    el('label', {for: rate.id}, 'Requests per second', rate),
    el('label', {for: pins.id}, 'Own pins', pins),
    el('label', {for: size.id}, 'Own uploads in MiB', size)),
  el('fieldset', null, el('legend', null, 'Scopes'), el('div.checks', null, boxes.map(({label}) => label))),
  el('button.main', {type: 'submit'}, 'Create credential'))
  return element
}

export function credentials(place) {
  let ended = false
  let timer = null
  let shown = null
  const note = el('p', {role: 'status'}, 'Loading')
  const body = el('tbody')
  const token = el('div')
  const creation = form(answer => {
    fill(token, created(answer, () => { fill(token); creation.querySelector('input').focus() }))
    token.firstChild.focus()
    refresh()
  })
  fill(place,
    el('div.head', null, el('div', null, el('h1', null, 'Credentials'), note)),
    token,
    el('section.card', null, el('div.scroll', null, el('table.stack', null,
      el('thead', null, el('tr', null, ['Name', 'Scopes', 'Expires', 'Rate', 'Use', 'Created', 'Action'].map(title => el('th', null, title)))),
      body))),
    el('section.card', null, el('h2', null, 'New credential'), creation))

  // The rows stay while nothing changes, and with them the focus.
  function show(found) {
    const state = JSON.stringify(found.map(credential => [credential, isExpired(credential)]))
    if (state === shown) return
    shown = state
    const cells = found.map(credential => [credential, el('td')])
    fill(note, plural(found.length, 'credential'))
    fill(body, cells.map(([credential, used]) => row(credential, used, refresh)),
      found.length ? null : el('tr', null, el('td', {colspan: 7}, el('p.empty', null, 'No credentials.'))))
    showUsage(cells.filter(([credential]) => credential.scopes.includes('own')), () => !ended && state === shown)
  }

  async function refresh() {
    clearTimeout(timer)
    try {
      const found = await json('GET', '/auth/credentials')
      if (ended) return
      show(found)
    } catch (error) {
      if (!ended) fill(note, error.message)
    }
    if (!ended) timer = setTimeout(refresh, INTERVAL_MS)
  }

  refresh()
  return () => { ended = true; clearTimeout(timer) }
}
