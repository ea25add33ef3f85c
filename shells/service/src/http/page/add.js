// Add: uploads files and folders, and shows the progress of each file and of the copies.

import {el, fill, tag, toast} from './dom.js'
import {json, upload} from './api.js'
import {bytes, copies, plural, short, statusKind, statusText} from './format.js'

const POLL_MS = 1000
// Files whose progress is shown one by one.
const SHOWN = 200

// Lists the files of dropped items, folders included: {file, path}.
async function dropped(items) {
  const found = []
  const entries = []
  // Both must be asked for before anything is waited for: afterwards the items are gone.
  for (const item of items) {
    const entry = item.webkitGetAsEntry()
    const file = entry ? null : item.getAsFile()
    if (entry) entries.push(entry)
    else if (file) found.push({file, path: file.name})
  }
  const walk = async (entry, prefix) => {
    if (entry.isFile) {
      const file = await new Promise((resolve, reject) => entry.file(resolve, reject))
      found.push({file, path: prefix + entry.name})
      return
    }
    const reader = entry.createReader()
    for (;;) {
      const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject))
      if (!some.length) break
      for (const child of some) await walk(child, prefix + entry.name + '/')
    }
  }
  for (const entry of entries) await walk(entry, '')
  return found
}

function chosen(input) {
  return [...input.files].map(file => ({file, path: file.webkitRelativePath || file.name}))
}

// Shows the state of each copy of a root.
function copyList(info) {
  const peers = Object.entries(info.peer_map || {}).filter(([, peer]) => peer.status !== 'remote')
    .sort((a, b) => a[1].peername.localeCompare(b[1].peername))
  return peers.map(([id, peer]) => el('li', {'data-copy': id},
    tag((peer.peername || short(id)) + ': ' + statusText(peer.status), statusKind(peer.status)),
    peer.error ? el('span.sub', null, ' ' + peer.error) : null))
}

// Follows the copies of a root until all exist, while `isOpen`: their number in `place`, each one in `list`.
async function follow(cid, place, list, isOpen) {
  while (isOpen()) {
    try {
      const info = await json('GET', '/pins/' + encodeURIComponent(cid))
      const {held, wanted, failed} = copies(info)
      fill(list, copyList(info))
      const whole = wanted > 0 && held === wanted
      fill(place, tag(held + ' of ' + plural(wanted, 'copy', 'copies'), whole ? 'good' : failed ? 'bad' : 'busy'))
      if (whole) return
    } catch (error) {
      fill(place, tag(error.message, 'bad'))
    }
    await new Promise(resolve => setTimeout(resolve, POLL_MS))
  }
}

function progressList(files) {
  const shown = files.slice(0, SHOWN).map(({file, path}) => {
    const bar = el('progress', {max: Math.max(file.size, 1), value: 0, 'aria-label': path})
    return {bar, element: el('li', null, el('div.row', null, el('span.name', null, path), el('span.time', null, bytes(file.size))), bar)}
  })
  const rest = files.length > SHOWN ? el('li', null, el('span.sub', null, 'and ' + plural(files.length - SHOWN, 'more file'))) : null
  const total = files.reduce((sum, {file}) => sum + file.size, 0)
  return {
    element: el('ul.list', null, shown.map(entry => entry.element), rest),
    // Files are sent one after the other, so the bytes sent tell how far each is.
    update(sent, length) {
      let left = length ? sent * total / length : 0
      shown.forEach((entry, at) => {
        const size = files[at].file.size
        entry.bar.value = Math.min(Math.max(left, 0), size) || (sent >= length ? 1 : 0)
        left -= size
      })
    }
  }
}

function result(line, isOpen) {
  const state = el('span', null, tag('pinning', 'busy'))
  const each = el('ul.tags.copies', {'aria-label': 'Copies'})
  follow(line.cid, state, each, isOpen)
  return el('li', null, el('div.row', null,
    el('span', null, el('a.name', {href: '#/pins/' + encodeURIComponent(line.cid)}, line.name || line.cid),
      el('div', null, el('code', null, line.cid))),
    el('span.actions', null, state,
      el('button.quiet', {type: 'button', onclick: () => navigator.clipboard.writeText(line.cid).then(() => toast('Copied'), () => {})}, 'Copy CID'))), each)
}

export function add(place) {
  let open = true
  const files = el('input', {id: 'files', type: 'file', multiple: true, class: 'hide', tabindex: -1, 'aria-label': 'Files'})
  const folder = el('input', {id: 'folder', type: 'file', webkitdirectory: true, class: 'hide', tabindex: -1, 'aria-label': 'Folder'})
  const name = el('input', {id: 'name', autocomplete: 'off', maxlength: 255})
  const min = el('input', {id: 'rmin', type: 'number', min: 1, placeholder: 'default'})
  const max = el('input', {id: 'rmax', type: 'number', min: 1, placeholder: 'default'})
  const wrap = el('input', {id: 'wrap', type: 'checkbox'})
  const work = el('div')
  const zone = el('div.drop', null,
    el('p', null, 'Drop files and folders here'),
    el('div.actions', null,
      el('button.main', {type: 'button', onclick: () => files.click()}, 'Choose files'),
      el('button', {type: 'button', onclick: () => folder.click()}, 'Choose a folder')),
    files, folder)

  fill(place,
    el('div.head', null, el('div', null, el('h1', null, 'Add'), el('p', null, 'Content is stored by the peers that will hold it, then pinned.'))),
    el('section.card', null, zone),
    el('section.card', null, el('h2', null, 'Options'), el('div.fields', null,
      el('label', {for: 'name'}, 'Name of the pin', name),
      el('label', {for: 'rmin'}, 'Minimum of copies', min),
      el('label', {for: 'rmax'}, 'Maximum of copies', max),
      el('label.check', {for: 'wrap'}, wrap, 'Wrap in a folder'))),
    work)

  async function send(list) {
    if (!list.length) return
    const form = new FormData()
    for (const {file, path} of list) form.append('file', file, encodeURIComponent(path))
    const query = new URLSearchParams({'stream-channels': 'true', 'cid-version': '1'})
    if (name.value) query.set('name', name.value)
    if (min.value) query.set('replication-min', min.value)
    if (max.value || min.value) query.set('replication-max', max.value || min.value)
    const wrapped = wrap.checked || list.every(({path}) => !path.includes('/')) && list.length > 1
    if (wrapped) query.set('wrap-with-directory', 'true')

    const progress = progressList(list)
    const state = el('p', {role: 'status'}, 'Uploading')
    const results = el('ul.list.results')
    work.prepend(el('section.card', null, el('h2', null, plural(list.length, 'file')), state, progress.element, results))
    const roots = new Map()
    try {
      await upload('/add?' + query, form, (sent, length) => {
        progress.update(sent, length)
        fill(state, sent < length ? `Uploading: ${bytes(sent)} of ${bytes(length)}` : 'Storing')
      }, line => { if (line.cid) roots.set(wrapped ? line.name : line.name.split('/')[0], line) })
      fill(state, 'Added')
      // The root of a folder comes last, under its own name.
      const last = [...roots.values()].at(-1)
      const shown = wrapped ? [last] : [...roots].filter(([root, line]) => root === line.name).map(([, line]) => line)
      fill(results, shown.map(line => result(line, () => open)))
    } catch (error) {
      fill(state, el('span.notice.bad', {role: 'alert'}, error.message))
    }
  }

  const stop = event => event.preventDefault()
  zone.addEventListener('dragover', event => { stop(event); zone.classList.add('over') })
  zone.addEventListener('dragleave', () => zone.classList.remove('over'))
  zone.addEventListener('drop', async event => {
    stop(event)
    zone.classList.remove('over')
    try { send(await dropped(event.dataTransfer.items)) } catch (error) { toast(error.message, 'bad') }
  })
  for (const input of [files, folder]) {
    input.addEventListener('change', () => { send(chosen(input)); input.value = '' })
  }
  return () => { open = false }
}
