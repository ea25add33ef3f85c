// Requests to the REST API. The token of a signed-in user is in memory only: it ends with the page.

let token = null

export const signedIn = () => token !== null
export function signOut() { token = null }

export class ApiError extends Error {
  constructor(status, message) {
    super(message)
    this.status = status
  }
}

function headers(extra) {
  const sent = new Headers(extra)
  if (token) sent.set('Authorization', 'Bearer ' + token)
  return sent
}

async function failure(response) {
  const text = await response.text().catch(() => '')
  let message = text
  try { message = JSON.parse(text).message || text } catch { /* It is no JSON. */ }
  if (response.status === 401) document.dispatchEvent(new CustomEvent('unauthorized'))
  return new ApiError(response.status, message || 'the peer answered ' + response.status)
}

// Sends a request. Cookies and remembered passwords are never sent with it.
export async function send(method, path, options = {}) {
  let response
  try {
    response = await fetch(path, {
      method, credentials: 'omit', cache: 'no-store', signal: options.signal, body: options.body,
      headers: headers(options.headers)
    })
  } catch (error) {
    if (error.name === 'AbortError') throw error
    throw new ApiError(0, 'this peer cannot be reached')
  }
  if (!response.ok && !(options.accept || []).includes(response.status)) throw await failure(response)
  return response
}

export async function json(method, path, options) {
  const response = await send(method, path, options)
  return response.status === 204 ? null : response.json()
}

export async function text(path) {
  return (await send('GET', path)).text()
}

// Yields the values of a stream of lines, as they arrive and as they are asked for: what is not asked for
// is not read, and the peer waits.
export async function * lines(path, options = {}) {
  const response = await send(options.method || 'GET', path, options)
  if (response.status === 204 || !response.body) return
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
  let rest = ''
  try {
    for (;;) {
      const {done, value} = await reader.read()
      if (done) break
      rest += value
      const parts = rest.split('\n')
      rest = parts.pop()
      for (const part of parts) if (part.trim()) yield JSON.parse(part)
    }
    if (rest.trim()) yield JSON.parse(rest)
  } finally {
    reader.cancel().catch(() => {})
  }
}

export async function all(path, options) {
  const values = []
  for await (const value of lines(path, options)) values.push(value)
  return values
}

// Returns who is signed in, and the scopes.
export async function self() { return json('GET', '/auth/self') }

// Signs in with the token of a credential as the password, or with user and password.
export async function signIn(user, password) {
  if (password.startsWith('icc_')) {
    const response = await fetch('/auth/self', {credentials: 'omit', headers: {Authorization: 'Bearer ' + password}})
    if (!response.ok) throw new ApiError(response.status, 'the token is not accepted')
    token = password
    return
  }
  const basic = btoa(String.fromCharCode(...new TextEncoder().encode(user + ':' + password)))
  const response = await fetch('/token', {
    method: 'POST', credentials: 'omit', headers: {Authorization: 'Basic ' + basic}
  })
  if (!response.ok) throw new ApiError(response.status, 'user or password are wrong')
  token = (await response.json()).token
}

// Uploads a form with progress, which `fetch` does not report; `onLine` gets each value of the answer.
export function upload(path, form, onProgress, onLine) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest()
    let read = 0
    const take = end => {
      const text = request.responseText
      for (let at; (at = text.indexOf('\n', read)) >= 0; read = at + 1) {
        if (text.slice(read, at).trim()) onLine(JSON.parse(text.slice(read, at)))
      }
      if (end && text.slice(read).trim()) onLine(JSON.parse(text.slice(read)))
    }
    request.open('POST', path)
    if (token) request.setRequestHeader('Authorization', 'Bearer ' + token)
    request.upload.onprogress = event => onProgress(event.loaded, event.total)
    request.onprogress = () => { if (request.status === 200) take(false) }
    request.onerror = () => reject(new ApiError(0, 'the upload broke off'))
    request.onload = () => {
      if (request.status !== 200) {
        let message = request.responseText
        try { message = JSON.parse(message).message } catch { /* It is no JSON. */ }
        reject(new ApiError(request.status, message || 'the peer answered ' + request.status))
        return
      }
      take(true)
      resolve()
    }
    request.send(form)
  })
}

// Parses the Prometheus format: a list of {name, labels, value}.
export async function metrics() {
  const found = []
  for (const line of (await text('/metrics')).split('\n')) {
    const match = /^([a-z_]+)(?:\{(.*)\})? (\S+)$/.exec(line)
    if (!match) continue
    const labels = {}
    for (const [, key, value] of (match[2] || '').matchAll(/([a-z_]+)="((?:[^"\\]|\\.)*)"/g)) {
      labels[key] = value.replace(/\\(.)/g, (_, c) => c === 'n' ? '\n' : c)
    }
    found.push({name: match[1], labels, value: Number(match[3])})
  }
  return {
    one: (name, labels = {}) => {
      const fits = sample => Object.entries(labels).every(([key, value]) => sample.labels[key] === value)
      const sample = found.find(sample => sample.name === 'ipfscluster_' + name && fits(sample))
      return sample ? sample.value : NaN
    },
    all: name => found.filter(sample => sample.name === 'ipfscluster_' + name)
  }
}
