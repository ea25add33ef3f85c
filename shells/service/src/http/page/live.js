// The stream of events: connects again after a failure, and resumes after the last event.

import {lines} from './api.js'

const RETRY_MS = 2000
const KEPT = 60

const listeners = new Set()
const recent = []
let last = null
let running = null
let shown = ''

export const recentEvents = () => recent

// Calls `listener` for each event until the returned function is called.
export function listen(listener) {
  listeners.add(listener)
  return () => listeners.delete(listener)
}

function show(state, text) {
  if (shown === text) return
  shown = text
  const live = document.getElementById('live')
  live.className = 'live ' + state
  live.textContent = text
}

function take(event) {
  if (event.type === 'closed') return
  last = event.id
  if (event.type === 'statuses_followed') return
  recent.unshift(event)
  recent.length = Math.min(recent.length, KEPT)
  for (const listener of [...listeners]) listener(event)
}

export function start() {
  stop()
  const abort = new AbortController()
  running = abort
  follow(abort.signal)
}

export function stop() {
  if (running) running.abort()
  running = null
}

async function follow(signal) {
  while (!signal.aborted) {
    try {
      const opened = setTimeout(() => show('on', 'Live'), 300)
      try {
        for await (const event of lines('/events' + (last ? '?after=' + last : ''), {signal})) take(event)
      } finally {
        clearTimeout(opened)
      }
    } catch (error) {
      if (signal.aborted || error.status === 401) return
    }
    show('off', 'Not connected')
    await new Promise(resolve => setTimeout(resolve, RETRY_MS))
  }
}
