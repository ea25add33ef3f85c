// Asks for the user and the password of the REST API, or for the token of a credential.

import {el, fill} from './dom.js'
import {signIn as enter} from './api.js'

export function signIn(place, done) {
  const user = el('input', {id: 'user', autocomplete: 'username'})
  const password = el('input', {id: 'password', type: 'password', autocomplete: 'current-password', required: true})
  const problem = el('p.notice.bad', {role: 'alert', hidden: true})
  const form = el('form', {
    onsubmit: async event => {
      event.preventDefault()
      problem.hidden = true
      try {
        await enter(user.value, password.value)
        password.value = ''
        done()
      } catch (error) {
        fill(problem, error.message).hidden = false
        password.focus()
      }
    }
  },
  problem,
  el('label', {for: 'user'}, 'User', user),
  el('label', {for: 'password'}, 'Password or token', password),
  el('button.main', {type: 'submit'}, 'Sign in'))
  fill(place, el('div.card.sign-in', null,
    el('h1', null, 'Sign in'),
    el('p.sub', null, 'This cluster needs credentials. A token needs no user. They are kept until this page is closed.'),
    form))
  user.focus()
}
