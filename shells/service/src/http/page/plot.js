// A small plot of one series, and its text for screen readers.

import {svg} from './dom.js'

const WIDTH = 300
const HEIGHT = 80

// Draws values from 0 to their maximum; those that are not numbers leave gaps at the baseline.
export function plot(values, label) {
  const top = Math.max(...values.filter(Number.isFinite), 0) || 1
  if (values.length === 1) values = [values[0], values[0]]
  const x = at => values.length > 1 ? at * WIDTH / (values.length - 1) : 0
  const y = value => HEIGHT - 2 - (Number.isFinite(value) ? value : 0) / top * (HEIGHT - 8)
  const points = values.map((value, at) => x(at).toFixed(1) + ' ' + y(value).toFixed(1))
  const image = svg('svg', {
    class: 'plot', viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img', 'aria-label': label
  })
  image.append(svg('line', {x1: 0, x2: WIDTH, y1: HEIGHT - 1, y2: HEIGHT - 1}))
  if (points.length > 1) {
    const path = 'M' + points.join('L')
    image.append(
      svg('path', {class: 'area', d: path + `L${WIDTH} ${HEIGHT}L0 ${HEIGHT}Z`}),
      svg('path', {class: 'line', d: path}))
  }
  return image
}

// A bar that shows a share from 0 to 1.
export function meter(share) {
  const width = Math.max(0, Math.min(1, share || 0)) * 100
  return svg('svg', {viewBox: '0 0 100 4', preserveAspectRatio: 'none', 'aria-hidden': 'true'},
    svg('rect', {width, height: 4, rx: 1}))
}
