// Elements are built here and nowhere else. Text becomes text nodes, never markup: names of pins and peers
// are hostile input.

// Creates an element: el('p.sub', {title: 'x'}, 'text', child). Children that are null are left out.
export function el(kind, attributes, ...children) {
  const [tag, ...classes] = kind.split('.')
  const element = document.createElement(tag)
  if (classes.length) element.className = classes.join(' ')
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value)
    else if (name === 'value') element.value = value
    else element.setAttribute(name, value === true ? '' : value)
  }
  add(element, children)
  return element
}

function add(element, children) {
  for (const child of children.flat()) {
    if (child === null || child === undefined || child === false) continue
    element.append(child instanceof Node ? child : String(child))
  }
}

// The element that a pointer holds down, and content that waits until it is released: a button that is
// replaced in between would get no click.
let pressed = null
const waiting = new Map()

document.addEventListener('pointerdown', event => { pressed = event.target })
for (const end of ['pointerup', 'pointercancel']) {
  // The click follows the release, so what waits is shown one task later.
  document.addEventListener(end, () => setTimeout(() => {
    pressed = null
    const late = [...waiting]
    waiting.clear()
    for (const [element, children] of late) fill(element, ...children)
  }))
}

// Replaces the content of an element. A focused button or link keeps the focus if it is still there.
export function fill(element, ...children) {
  if (pressed && element.contains(pressed)) {
    waiting.set(element, children)
    return element
  }
  const focused = document.activeElement
  const label = element.contains(focused) && focused !== element ? focused.textContent : null
  const alike = () => [...element.querySelectorAll('button, a')].filter(control => control.textContent === label)
  const at = label ? alike().indexOf(focused) : -1
  element.replaceChildren()
  add(element, children)
  if (at >= 0) alike()[at]?.focus()
  return element
}

const SVG = 'http://www.w3.org/2000/svg'

export function svg(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag)
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value)
  element.append(...children)
  return element
}

export function tag(text, kind) {
  return el('span.tag' + (kind ? '.' + kind : ''), null, text)
}

// A term and its value for el('dl.facts').
export function fact(term, ...values) {
  return [el('dt', null, term), el('dd', null, ...values)]
}

export function figure(term, value, note, bad) {
  return el('div.card', null, el('dl.figure' + (bad ? '.bad' : ''), null,
    el('dt', null, term), el('dd', null, value, note ? el('small', null, note) : null)))
}

export function toast(text, kind = 'good') {
  const notice = el('div.notice.' + kind, null, text)
  document.getElementById('toasts').append(notice)
  setTimeout(() => notice.remove(), kind === 'bad' ? 12000 : 5000)
}

// Asks before something that cannot be undone. Resolves to true if it is confirmed.
export function confirm(title, text, verb) {
  const dialog = document.getElementById('dialog')
  return new Promise(resolve => {
    const close = answer => { dialog.close(answer); }
    fill(dialog,
      el('h2', {id: 'dialog-title'}, title),
      el('p', null, text),
      el('div.actions', null,
        el('button', {type: 'button', autofocus: true, onclick: () => close('no')}, 'Cancel'),
        el('button.danger.main', {type: 'button', onclick: () => close('yes')}, verb)))
    dialog.returnValue = ''
    dialog.addEventListener('close', () => resolve(dialog.returnValue === 'yes'), {once: true})
    dialog.showModal()
  })
}

// Runs an action of a button: disabled meanwhile, and its failure is shown.
export function action(label, run, kind = '') {
  const button = el('button' + kind, {type: 'button'}, label)
  button.addEventListener('click', async () => {
    button.disabled = true
    try {
      await run()
    } catch (error) {
      toast(error.message, 'bad')
    } finally {
      button.disabled = false
    }
  })
  return button
}
