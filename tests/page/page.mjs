// Drives the web page of a cluster of three peers in a headless Chromium, for tests/tests/page.rs:
//   node page.mjs PORT SECURED_PORT PICTURES
// With the variable PAGE_FILES, a folder, the files of the page are read from there instead of from the peer.
// Prints "kill" when the third peer shall be killed, and goes on after a line on standard input. Prints "passed" at
// the end; any error ends it with a message.

import assert from 'node:assert/strict'
import {createInterface} from 'node:readline'
import {mkdtempSync, mkdirSync, readFileSync, writeFileSync} from 'node:fs'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import chromium from '@sparticuz/chromium'
import puppeteer from 'puppeteer-core'

const [port, securedPort, pictures] = process.argv.slice(2)
const base = `http://127.0.0.1:${port}/`
const PATIENCE = 120000
const answers = createInterface({input: process.stdin})[Symbol.asyncIterator]()

const browser = await puppeteer.launch({
  executablePath: await chromium.executablePath(), args: [...chromium.args, '--disable-web-security=false'], headless: 'shell',
  protocolTimeout: PATIENCE
})
const problems = []
const notes = []
let expected = []

async function open(url, width = 1280, scheme = 'light', height = 860) {
  const page = await browser.newPage()
  page.setDefaultTimeout(PATIENCE)
  await page.setViewport({width, height})
  await page.emulateMediaFeatures([{name: 'prefers-color-scheme', value: scheme}])
  page.on('pageerror', error => problems.push('error: ' + error.message))
  // Messages vanish from the page, and explain a failure.
  await page.exposeFunction('noteToast', text => notes.push(text))
  await page.evaluateOnNewDocument(() => document.addEventListener('DOMContentLoaded', () => {
    const toasts = document.getElementById('toasts')
    if (toasts) new MutationObserver(() => window.noteToast(toasts.innerText)).observe(toasts, {childList: true})
  }))
  page.on('dialog', dialog => { problems.push('a script ran: ' + dialog.message()); dialog.dismiss() })
  page.on('console', message => {
    const text = message.text() + ' ' + message.location().url
    if (message.type() === 'error' && !expected.some(part => text.includes(part))) problems.push('console: ' + text)
  })
  page.on('request', request => {
    const {origin, protocol} = new URL(request.url())
    if (protocol !== 'data:' && !base.startsWith(origin) && !origin.endsWith(securedPort)) problems.push('asked ' + request.url())
  })
  if (process.env.PAGE_FILES) {
    await page.setRequestInterception(true)
    page.on('request', async request => {
      const [, name] = /\/ui\/([a-z_.]+)$/.exec(request.url()) || []
      if (!name) return request.continue()
      const kind = {js: 'text/javascript', css: 'text/css', svg: 'image/svg+xml'}[name.split('.')[1]]
      request.respond({contentType: kind, body: readFileSync(join(process.env.PAGE_FILES, name))})
    })
  }
  await page.goto(url)
  return page
}

// Waits for a condition in the page. The library's own waiting needs `eval`, which the page's policy forbids.
async function until(page, condition, ...values) {
  const since = Date.now()
  for (;;) {
    if (await page.evaluate(condition, ...values)) return
    assert(Date.now() - since < PATIENCE, `not so in time: ${condition} ${values}`)
    await new Promise(resolve => setTimeout(resolve, 100))
  }
}

const seen = (page, text) => until(page,
  text => document.querySelector('main').innerText.toLowerCase().includes(text.toLowerCase()), text)

// Clicks the button or link of a label, in one step: the page may replace it at any time.
async function press(page, label, inside = 'body') {
  await until(page, (label, inside) => {
    const found = [...document.querySelectorAll(inside + ' button, ' + inside + ' a')].find(
      element => element.textContent.trim() === label && !element.disabled && element.getClientRects().length)
    if (!found) return false
    found.scrollIntoView({block: 'center', behavior: 'instant'})
    const {left, top, width, height} = found.getClientRects()[0]
    if (!found.contains(document.elementFromPoint(left + width / 2, top + height / 2))) return false
    found.focus()
    found.click()
    return true
  }, label, inside)
}

const toasted = (page, text) => until(page,
  text => document.getElementById('toasts').innerText.includes(text), text)

async function picture(page, name) {
  await page.screenshot({path: join(pictures, name + '.png')})
}

// No element sticks out of the window, and text has enough contrast.
async function usable(page, name) {
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth)
  assert(wide <= 0, `${name} is ${wide} pixels too wide`)
  const poor = await page.evaluate(() => {
    const channel = value => value / 255 <= 0.03928 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4
    const parse = color => (color.match(/[\d.]+/g) || []).map(Number)
    const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b)
    const behind = element => {
      for (; element; element = element.parentElement) {
        const color = parse(getComputedStyle(element).backgroundColor)
        if (color.length === 3 || color[3] > 0.9) return color
      }
      return [255, 255, 255]
    }
    const found = []
    for (const element of document.querySelectorAll('body *')) {
      const own = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim())
      if (!own || !element.offsetParent || element.disabled) continue
      const [a, b] = [light(parse(getComputedStyle(element).color)), light(behind(element))].sort((x, y) => y - x)
      if ((a + 0.05) / (b + 0.05) < 4.5) found.push(element.className + ' ' + element.textContent.slice(0, 30))
    }
    return found
  })
  assert.deepEqual(poor, [], name + ': contrast below 4.5')
  const unnamed = await page.evaluate(() => [...document.querySelectorAll('button, a, input, select')]
    .filter(element => element.offsetParent && !(element.textContent.trim() || element.getAttribute('aria-label') ||
      element.labels?.length || element.querySelector('img')))
    .map(element => element.outerHTML))
  assert.deepEqual(unnamed, [], name + ': controls without a name')
}

async function request(method, path) {
  const response = await fetch(base + path, {method})
  assert(response.ok, `${method} ${path}: ${response.status}`)
  return response
}

// Names that would run scripts if they became markup.
const HOSTILE = [
  '<img src=x onerror=alert(1)>', '"><script>alert(2)</script>', "javascript:alert(3)//'", '{{constructor.constructor("alert(4)")()}}',
  '\u202egnp.exe', '<svg/onload=alert(5)>'
]
const identity = text => {
  const bytes = [1, 0x55, 0, text.length, ...Buffer.from(text)]
  const digits = 'abcdefghijklmnopqrstuvwxyz234567'
  let bits = ''
  for (const byte of bytes) bits += byte.toString(2).padStart(8, '0')
  return 'b' + bits.match(/.{1,5}/g).map(five => digits[parseInt(five.padEnd(5, '0'), 2)]).join('')
}

async function overview(page) {
  await seen(page, '3 of 3')
  await seen(page, 'Leader')
  await page.waitForSelector('.live.on')
  await until(page, () => {
    const rows = [...document.querySelectorAll('main tbody tr')].map(row => [...row.cells].map(cell => cell.innerText))
    return rows.length === 3 && rows.every(([, state, version, held, queue]) =>
      state.includes('voter') && /^\d+\.\d+/.test(version) && /^\d/.test(held) && /^\d/.test(queue))
  })
  await usable(page, 'overview')
}

// Each peer's row has the number of pins that it holds.
async function held(page, count) {
  await page.goto(base + '#/overview')
  await until(page, count => {
    const rows = [...document.querySelectorAll('main tbody tr')]
    return rows.length === 3 && rows.every(row => row.cells[3].innerText === String(count) && row.cells[4].innerText === '0')
  }, count)
}

async function uploads(page) {
  await press(page, 'Add', 'nav')
  await seen(page, 'Drop files and folders here')
  const folder = mkdtempSync(join(tmpdir(), 'page-'))
  mkdirSync(join(folder, 'site/assets'), {recursive: true})
  writeFileSync(join(folder, 'report.txt'), 'x'.repeat(300000))
  writeFileSync(join(folder, 'site/index.html'), '<h1>hello</h1>')
  writeFileSync(join(folder, 'site/assets/100% 1.css'), 'body { margin: 0 }')
  await page.type('#name', 'Annual report')
  const files = await page.$('#files')
  await files.uploadFile(join(folder, 'report.txt'))
  await seen(page, '3 of 3 copies')
  await page.$eval('#name', input => { input.value = 'Web site' })
  const tree = await page.$('#folder')
  await tree.uploadFile(join(folder, 'site'))
  await until(page, () => document.querySelectorAll('.results').length === 2 &&
    document.querySelector('.results').innerText.includes('3 of 3 copies'))
  await usable(page, 'add')
  const root = await page.$eval('.results code', code => code.textContent)
  const list = await (await fetch(base + 'allocations/' + root)).json()
  assert.equal(list.name, 'Web site')
  // Each copy is shown with its peer.
  const peers = (await (await fetch(base + 'peers')).text()).trim().split('\n').map(line => JSON.parse(line))
  for (const {id, peername} of peers) {
    const copy = await page.$eval(`.results [data-copy="${id}"]`, copy => copy.innerText)
    assert.equal(copy, peername + ': pinned')
  }
  await picture(page, 'add')
  await dropped(page)
  await held(page, 3)
}

// A file that is dropped on the page.
async function dropped(page) {
  await page.evaluate(() => {
    const data = new DataTransfer()
    data.items.add(new File(['dropped content'], 'dropped.txt'))
    document.querySelector('.drop').dispatchEvent(new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true}))
  })
  await until(page, () => document.querySelector('.results').innerText.includes('dropped.txt'))
}

async function attacks(page) {
  for (const [at, name] of HOSTILE.entries()) {
    const query = new URLSearchParams({name, ['meta-' + name]: name})
    await request('POST', `pins/${identity('attack' + at)}?${query}`)
  }
  await press(page, 'Pins', 'nav')
  for (const name of HOSTILE.slice(0, 3)) await seen(page, name)
  assert.equal(await page.$$eval('main img, main script, main svg[onload]', found => found.length), 0)
  await page.goto(base + '#/pins/' + identity('attack0'))
  await seen(page, HOSTILE[0] + ' = ' + HOSTILE[0])
  await usable(page, 'pin')
  // A hostile address names no element either.
  await page.goto(base + '#/pins/' + encodeURIComponent('<img src=x onerror=alert(6)>'))
  expected.push('/pins/%3Cimg', '/allocations/%3Cimg')
  await seen(page, 'error decoding')
  for (const at of HOSTILE.keys()) await request('DELETE', 'pins/' + identity('attack' + at))
  await hostileOwner(page)
}

// Owners come from an import, too, with any name.
async function hostileOwner(page) {
  const owner = '<img src=x onerror=alert(7)>'
  const cid = identity('hostile owner')
  const pin = {cid, type: 'pin', replication_factor_min: -1, replication_factor_max: -1, metadata: {['owner/' + owner]: ''}}
  assert((await fetch(base + 'allocations', {method: 'POST', body: JSON.stringify(pin)})).ok)
  await page.goto(base + '#/pins')
  await seen(page, 'Owned by ' + owner)
  await page.goto(base + '#/pins/' + cid)
  await until(page, owner => document.querySelector('[data-owner]')?.innerText === owner, owner)
  await page.goto(base + '#/pins')
  await request('DELETE', 'pins/' + cid)
}

async function listing(page) {
  await press(page, 'Pins', 'nav')
  await seen(page, 'Annual report')
  for (let at = 0; at < 60; at++) await request('POST', `pins/${identity('many' + at)}?name=Photo%20${at}&meta-album=summer`)
  const find = async (field, text) => {
    await page.select('#field', field)
    await page.$eval('#search', (input, text) => { input.value = text }, text)
    await press(page, 'Search')
  }
  const names = (...expected) => until(page, expected =>
    JSON.stringify([...document.querySelectorAll('tr[data-cid] a.name')].map(link => link.textContent)) === expected, JSON.stringify(expected))
  await find('meta', 'album=summer')
  await seen(page, '50 pins shown, there are more')
  await press(page, 'Show more')
  await seen(page, '60 pins')
  await find('ipartial', 'TO 7')
  await names('Photo 7')
  await find('iprefix', 'photo 5')
  await names('Photo 59', 'Photo 58', 'Photo 57', 'Photo 56', 'Photo 55', 'Photo 54', 'Photo 53', 'Photo 52', 'Photo 51', 'Photo 50', 'Photo 5')
  await page.select('#order', 'oldest')
  await names('Photo 5', 'Photo 50', 'Photo 51', 'Photo 52', 'Photo 53', 'Photo 54', 'Photo 55', 'Photo 56', 'Photo 57', 'Photo 58', 'Photo 59')
  await page.select('#order', 'newest')
  await find('cid', identity('many42'))
  await names('Photo 42')
  await find('meta', 'nothing')
  await seen(page, 'metadata is searched as key=value')
  await onePeer(page, find, names)
  await find('ipartial', '')
  await page.select('#status', 'pinned')
  await until(page, () => document.querySelectorAll('tr[data-cid]').length === 50)
  await usable(page, 'pins')
  // A pin that another client adds appears by itself.
  await page.select('#status', '')
  await page.$eval('#search', input => { input.value = 'Photo 59' })
  await press(page, 'Search')
  await seen(page, 'Photo 59')
  await request('DELETE', 'pins/' + identity('many59'))
  await until(page, () => document.querySelectorAll('tr[data-cid]').length === 0)
}

// A pin that only one peer holds is found by that peer, and not by another.
async function onePeer(page, find, names) {
  const cid = identity('alone')
  const [{id}, other] = (await (await fetch(base + 'peers')).text()).trim().split('\n').map(line => JSON.parse(line))
  await request('POST', `pins/${cid}?name=Alone&replication-min=1&replication-max=1&user-allocations=${id}`)
  for (let status; status !== 'pinned';) {
    await new Promise(resolve => setTimeout(resolve, 100))
    status = (await (await request('GET', 'pins/' + cid)).json()).peer_map[id].status
  }
  await find('ipartial', 'alone')
  await names('Alone')
  await page.select('#peer', other.id)
  await names()
  await page.select('#peer', id)
  await names('Alone')
  await page.select('#status', 'pinned')
  await names('Alone')
  await page.select('#status', 'pin_error')
  await names()
  await page.select('#status', '')
  await page.select('#peer', '')
  await request('DELETE', 'pins/' + cid)
}

async function onePin(page) {
  const cid = identity('many1')
  await page.goto(base + '#/pins/' + cid)
  await seen(page, 'album = summer')
  await until(page, () => [...document.querySelectorAll('td .tag')].filter(tag => tag.textContent === 'pinned').length === 3)
  // The history has what happened before the view was opened.
  await until(page, () => {
    const lines = [...document.querySelectorAll('#history li')].map(line => line.innerText)
    return lines.filter(line => line.includes('is pinned at')).length >= 3 && lines.some(line => line.startsWith('Pinned Photo 1'))
  })
  await page.type('#min', '1')
  await page.type('#max', '2')
  await press(page, 'Change copies')
  await toasted(page, 'The pin was changed')
  await seen(page, '1 to 2')
  let pin = await (await fetch(base + 'allocations/' + cid)).json()
  assert.deepEqual([pin.replication_factor_min, pin.replication_factor_max, pin.name, pin.metadata.album], [1, 2, 'Photo 1', 'summer'])
  await page.$eval('#expiry', input => {
    input.value = '2099-06-01T10:00'
    input.dispatchEvent(new Event('input', {bubbles: true}))
  })
  await press(page, 'Change expiry')
  await seen(page, '2099')
  pin = await (await fetch(base + 'allocations/' + cid)).json()
  assert(pin.expire_at.startsWith('2099'))
  await press(page, 'Recover')
  await toasted(page, 'tried again')
  // Without confirmation nothing happens; with the keyboard alone it can be confirmed.
  await press(page, 'Unpin')
  await page.waitForSelector('dialog[open]')
  await press(page, 'Cancel', 'dialog')
  assert((await fetch(base + 'allocations/' + cid)).ok)
  await press(page, 'Unpin', '.head')
  await page.waitForSelector('dialog[open]')
  await page.keyboard.press('Tab')
  await page.keyboard.press('Enter')
  expected.push('/allocations/' + cid)
  await seen(page, 'Not in the pinset')
  await press(page, 'Pin', '.head')
  await seen(page, 'Pin without a name')
}

async function members(page) {
  await press(page, 'Peers', 'nav')
  await until(page, () => document.querySelectorAll('[data-peer]').length === 3)
  await usable(page, 'peers')
  await press(page, 'Collect garbage')
  await press(page, 'Collect garbage', 'dialog')
  await toasted(page, 'deleted')
  await press(page, 'Recover failed pins')
  await toasted(page, 'No pin fails')
  // A drained peer is marked until the drain ends.
  const peer = await page.$eval('[data-peer]', card => card.dataset.peer)
  const card = `[data-peer="${peer}"]`
  const marked = card => [...document.querySelectorAll(card + ' .tag')].some(tag => tag.textContent === 'drained')
  await press(page, 'Drain', card)
  await press(page, 'Drain peer', 'dialog')
  await until(page, marked, card)
  const drains = await (await fetch(base + 'drains')).json()
  assert.deepEqual(drains.map(drain => drain.peer), [peer])
  await usable(page, 'peers with a drain')
  await press(page, 'End drain', card)
  await toasted(page, 'is not drained any more')
  await until(page, card => ![...document.querySelectorAll(card + ' button')].some(button => button.textContent === 'End drain'), card)
  await rebalancing(page)
  await scrubbing(page)
}

const tagged = (page, panel, text) => until(page, (panel, text) =>
  [...document.querySelectorAll(panel + ' .tag')].some(tag => tag.textContent === text), panel, text)

// Switches the rebalancing to automatic and back, and runs it once.
async function rebalancing(page) {
  const state = async () => (await fetch(base + 'rebalance')).json()
  await until(page, () => document.querySelectorAll('#rebalance tbody tr').length === 3)
  await press(page, 'Automatically', '#rebalance')
  await tagged(page, '#rebalance', 'automatic')
  assert.equal((await state()).automatic, true)
  await press(page, 'Only on request', '#rebalance')
  await toasted(page, 'on request only')
  // A button that is held down while the page reads everything again still gets the click.
  await page.evaluate(() => {
    window.held = [...document.querySelectorAll('#rebalance button')].find(button => button.textContent === 'Rebalance now')
    held.dispatchEvent(new PointerEvent('pointerdown', {bubbles: true}))
  })
  const isRead = response => response.url().endsWith('/ipfs/scrub')
  await page.waitForResponse(isRead)
  // What the answer before this one changed is shown by now.
  await page.waitForResponse(isRead)
  await page.evaluate(() => {
    held.dispatchEvent(new PointerEvent('pointerup', {bubbles: true}))
    if (held.isConnected) held.click()
  })
  await toasted(page, 'has started')
  await usable(page, 'upkeep')
}

// Pauses and resumes the scrub, and has a cycle run to its end.
async function scrubbing(page) {
  await press(page, 'Pause', '#scrub')
  await tagged(page, '#scrub', 'paused')
  await press(page, 'Resume', '#scrub')
  await toasted(page, 'go on')
  await press(page, 'Scrub now', '#scrub')
  await toasted(page, 'check what they hold')
  const {peer_map} = await (await fetch(base + 'ipfs/scrub')).json()
  assert(Object.values(peer_map).every(({state, cycle, last}) => state === 'running' || cycle || last))
}

// Creates a credential with the keyboard alone, and follows what its owner holds until it is revoked.
async function tokens(page) {
  await press(page, 'Credentials', 'nav')
  await seen(page, 'No credentials')
  await page.focus('#credential-name')
  await page.keyboard.type('tenant')
  for (const scope of ['read', 'pin', 'own']) {
    await page.focus('#scope-' + scope)
    await page.keyboard.press('Space')
  }
  await page.focus('#credential-pins')
  await page.keyboard.type('5')
  await page.keyboard.press('Enter')
  await seen(page, 'shown only now')
  await seen(page, 'open to everyone')
  assert.equal(await page.evaluate(() => document.activeElement.id), 'created')
  const token = await page.$eval('#token', code => code.textContent)
  const headers = {authorization: 'Bearer ' + token}
  const cid = identity('owned')
  const pinned = await fetch(`${base}pins/${cid}?name=Mine`, {method: 'POST', headers})
  assert.equal(pinned.status, 200)
  await usable(page, 'credentials')
  await press(page, 'Hide the token')
  assert.equal(await page.$('#token'), null)
  assert.equal(await page.evaluate(() => document.activeElement.id), 'credential-name')
  // Names as long as they may be.
  const long = 'x'.repeat(64)
  const made = {name: long, scopes: ['add', 'own'], max_pins: 100, max_bytes: 1048576, requests_per_second: 9, expire_at: '2099-06-01T10:00:00Z'}
  assert.equal((await fetch(base + 'auth/credentials', {method: 'POST', body: JSON.stringify(made)})).status, 200)
  const row = name => page.$eval(`[data-credential="${name}"]`, row => row.innerText)
  await page.waitForSelector(`[data-credential="${long}"]`)
  await seen(page, '1 of 5 pins')
  await seen(page, '0 B of 1.0 MiB uploaded')
  const shown = await row(long)
  assert(shown.includes('9 requests per second') && shown.includes('2099'), shown)
  await usable(page, 'credentials of owners')
  await picture(page, 'credentials')

  await request('POST', `pins/${cid}?name=Ours`)
  await page.goto(base + '#/pins/' + cid)
  await until(page, () => document.querySelector('[data-owner="tenant"]')?.innerText === 'tenant, as Mine')
  await page.goto(base + '#/pins')
  await until(page, cid => document.querySelector(`tr[data-cid="${cid}"] .owners`)?.innerText === 'Owned by users without an owner, tenant', cid)

  await page.goto(base + '#/credentials')
  await press(page, 'Revoke', '[data-credential="tenant"]')
  await press(page, 'Cancel', 'dialog')
  assert.equal((await fetch(base + 'pins/' + cid, {headers})).status, 200)
  await press(page, 'Revoke', '[data-credential="tenant"]')
  await press(page, 'Revoke credential', 'dialog')
  await toasted(page, 'tenant was revoked')
  await until(page, () => !document.querySelector('[data-credential="tenant"]'))
  assert.equal((await fetch(base + 'pins/' + cid, {headers})).status, 401)
  await request('DELETE', 'pins/' + cid)
}

async function pictureSet(page) {
  await page.goto(base + '#/overview')
  await overview(page)
  await new Promise(resolve => setTimeout(resolve, 12000))
  await picture(page, 'overview')
  const cid = (await (await fetch(base + 'allocations')).text()).trim().split('\n').map(line => JSON.parse(line))
    .find(pin => pin.name === 'Annual report').cid
  await page.goto(base + '#/pins/' + cid)
  await seen(page, 'Annual report')
  await until(page, () => document.querySelectorAll('td .tag').length === 3)
  await picture(page, 'pin')
  for (const [scheme, width] of [['dark', 1280], ['light', 360], ['dark', 360]]) {
    for (const view of ['overview', 'pins', 'add', 'peers', 'credentials', 'pins/' + cid]) {
      const other = await open(base + '#/' + view, width, scheme)
      await until(other, () => !document.querySelector('main').innerText.includes('Loading'))
      await other.waitForSelector('main .card')
      await new Promise(resolve => setTimeout(resolve, 800))
      await usable(other, `${view} ${scheme} ${width}`)
      await picture(other, `${view.split('/').length > 1 ? 'pin' : view}-${scheme}-${width}`)
      await other.close()
    }
  }
}

async function death(page) {
  await page.goto(base + '#/overview')
  await seen(page, '3 of 3')
  console.log('kill')
  await answers.next()
  await seen(page, 'Lost the connection to peer')
  await seen(page, '2 of 3')
  await picture(page, 'death')
  await page.goto(base + '#/peers')
  await until(page, () => document.querySelectorAll('[data-peer] .tag.bad').length > 0)
  // The dead peer is removed with confirmation.
  const dead = await page.$eval('[data-peer]:has(.tag.bad)', card => card.dataset.peer)
  await press(page, 'Remove', `[data-peer="${dead}"]`)
  await press(page, 'Remove peer', 'dialog')
  await until(page, () => document.querySelectorAll('[data-peer]').length === 2)
}

async function credentials() {
  expected.push('401')
  const page = await open(`http://127.0.0.1:${securedPort}/`)
  await page.waitForSelector('#user')
  await usable(page, 'sign in')
  await picture(page, 'sign-in')
  await page.type('#user', 'ann')
  await page.type('#password', 'wrong')
  await press(page, 'Sign in', 'form')
  await seen(page, 'user or password are wrong')
  await page.$eval('#password', input => { input.value = '' })
  await page.type('#password', 'secret')
  await page.keyboard.press('Enter')
  await seen(page, '1 of 1')
  const stored = await page.evaluate(() => [localStorage.length, sessionStorage.length, document.cookie])
  assert.deepEqual(stored, [0, 0, ''])
  await press(page, 'Sign out')
  await page.waitForSelector('#user')
  await page.close()
}

// A token that permits reading sees everything and is offered nothing that it may not do.
async function readOnly() {
  const server = `http://127.0.0.1:${securedPort}/`
  const made = await fetch(server + 'auth/credentials', {
    method: 'POST',
    headers: {authorization: 'Basic ' + Buffer.from('ann:secret').toString('base64')},
    body: JSON.stringify({name: 'viewer', scopes: ['read']})
  })
  const {token} = await made.json()
  const page = await open(server)
  const visible = () => page.$$eval('.for-add, .for-pin, .for-admin',
    all => all.filter(element => element.offsetParent).length)
  await page.waitForSelector('#user')
  await page.type('#password', token)
  await page.keyboard.press('Enter')
  await seen(page, '1 of 1')
  for (const view of ['overview', 'pins', 'peers']) {
    await page.evaluate(view => { location.hash = '#/' + view }, view)
    await page.waitForSelector(view === 'overview' ? 'main .card' : 'main h1')
    assert.equal(await visible(), 0, view)
  }
  await seen(page, 'Peers')
  await usable(page, 'read only')
  await picture(page, 'read-only')
  await press(page, 'Sign out')
  await page.waitForSelector('#user')
  await page.type('#user', 'ann')
  await page.type('#password', 'secret')
  await page.keyboard.press('Enter')
  await seen(page, '1 member')
  assert(await visible() > 0, 'a user may do everything')
  await page.close()
}

try {
  const page = await open(base)
  for (const step of [overview, uploads, attacks, listing, onePin, members, tokens, pictureSet, death]) {
    process.stderr.write(step.name + '\n')
    await step(page)
  }
  await credentials()
  await readOnly()
  assert.deepEqual(problems, [])
  console.log('passed')
} catch (error) {
  const pages = await browser.pages()
  for (const [at, page] of pages.entries()) {
    if (page.url().startsWith('http')) {
      await page.screenshot({path: join(pictures, 'failed-' + at + '.png')}).catch(() => {})
      process.stderr.write(await page.evaluate(() => document.body.innerText).catch(() => '') + '\n')
    }
  }
  process.stderr.write([...problems, ...notes].join('\n') + '\n' + error.stack + '\n')
  process.exitCode = 1
} finally {
  await browser.close()
  process.exit()
}
