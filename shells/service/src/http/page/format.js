// Numbers, times and statuses for people.

export function bytes(count) {
  let value = Number(count)
  if (!Number.isFinite(value)) return '–'
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB']
  let unit = 0
  while (value >= 1024 && unit < units.length - 1) { value /= 1024; unit += 1 }
  return (unit && value < 100 ? value.toFixed(1) : Math.round(value)) + ' ' + units[unit]
}

export function number(value) {
  return Number.isFinite(value) ? value.toLocaleString('en') : '–'
}

export function seconds(value) {
  if (!Number.isFinite(value)) return '–'
  if (value < 0.001) return (value * 1e6).toFixed(0) + ' µs'
  if (value < 1) return (value * 1000).toFixed(value < 0.01 ? 1 : 0) + ' ms'
  if (value < 120) return value.toFixed(value < 10 ? 1 : 0) + ' s'
  if (value < 7200) return Math.round(value / 60) + ' min'
  if (value < 172800) return Math.round(value / 3600) + ' h'
  return Math.round(value / 86400) + ' days'
}

// The zero time of the API means "never".
export function time(text) {
  const at = new Date(text)
  return text && at.getFullYear() > 1 ? at.toLocaleString() : 'never'
}

export function clock(text) {
  return new Date(text).toLocaleTimeString()
}

export function short(id) {
  return id.length > 20 ? id.slice(0, 8) + '…' + id.slice(-8) : id
}

export function plural(count, one, many) {
  return number(count) + ' ' + (count === 1 ? one : many || one + 's')
}

const KINDS = {
  pinned: 'good', pinning: 'busy', pin_queued: 'busy', unpinning: 'busy', unpin_queued: 'busy',
  pin_error: 'bad', unpin_error: 'bad', cluster_error: 'bad', unexpectedly_unpinned: 'warn'
}

export function statusKind(status) {
  return KINDS[status] || ''
}

export function statusText(status) {
  return status.replaceAll('_', ' ')
}

// Names of the credentials that hold a pin, by its metadata; an empty one stands for all that act without an owner.
export function owners(pin) {
  const marks = Object.entries(pin.metadata || {}).filter(([key, value]) => !value && /^owner\/[^/]*$/.test(key))
  return marks.map(([key]) => key.slice('owner/'.length))
}

export function ownerName(owner) {
  return owner || 'users without an owner'
}

// Copies of a pin that exist, and that are wanted.
export function copies(info) {
  const peers = Object.values(info.peer_map || {}).filter(peer => peer.status !== 'remote')
  return {
    held: peers.filter(peer => peer.status === 'pinned').length,
    wanted: peers.length,
    failed: peers.filter(peer => statusKind(peer.status) === 'bad').length
  }
}
