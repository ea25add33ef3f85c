// Starts the page: chooses the view by the address, and starts the stream of events.

import {fill, toast} from './dom.js'
import {self, signOut, signedIn} from './api.js'
import * as live from './live.js'
import {overview} from './overview.js'
import {pins} from './pins.js'
import {pin} from './pin.js'
import {add} from './add.js'
import {peers} from './peers.js'
import {credentials} from './credentials.js'
import {signIn} from './sign_in.js'

const main = document.getElementById('main')
let leave = null

// Each view fills an element, and returns a function that ends it.
const VIEWS = {overview, pins, add, peers, credentials}

function show(view, title, argument) {
  if (leave) leave()
  leave = null
  document.title = title + ' – IPFS Cluster'
  const place = fill(document.createElement('div'))
  fill(main, place)
  leave = view(place, argument) || null
}

async function route() {
  const [name, argument] = location.hash.replace(/^#\/?/, '').split('/').map(decodeURIComponent)
  const view = VIEWS[name] ? name : 'overview'
  for (const link of document.querySelectorAll('.top nav a')) {
    if (link.getAttribute('href') === '#/' + view) link.setAttribute('aria-current', 'page')
    else link.removeAttribute('aria-current')
  }
  const title = view[0].toUpperCase() + view.slice(1)
  if (view === 'pins' && argument) show(pin, 'Pin', argument)
  else show(VIEWS[view], title, argument)
}

// What the user may not do is not offered: see `for-` in style.css.
async function showScopes() {
  const page = document.documentElement
  delete page.dataset.scopes
  try { page.dataset.scopes = (await self()).scopes.join(' ') } catch { /* The views show the failure. */ }
}

async function begin() {
  await showScopes()
  document.getElementById('sign-out').hidden = !signedIn()
  live.start()
  route()
}

function askForCredentials() {
  live.stop()
  signOut()
  document.getElementById('sign-out').hidden = true
  show(signIn, 'Sign in', begin)
}

window.addEventListener('hashchange', () => {
  if (document.querySelector('.sign-in')) return
  route()
  main.focus()
})
document.addEventListener('unauthorized', () => {
  if (!document.querySelector('.sign-in')) askForCredentials()
})
document.getElementById('sign-out').addEventListener('click', askForCredentials)
document.querySelector('.skip').addEventListener('click', event => {
  event.preventDefault()
  main.focus()
})

try {
  await self()
  begin()
} catch (error) {
  if (error.status !== 401) {
    toast(error.message, 'bad')
    begin()
  }
}
