// What every other module builds with: html`<p>…</p>`, hooks, and a value that components follow.
import { h } from '../vendor/preact.js'
import { useEffect, useReducer } from '../vendor/hooks.js'
import htm from '../vendor/htm.js'

export { render, Fragment } from '../vendor/preact.js'
export { useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState, useErrorBoundary, useId } from '../vendor/hooks.js'

export const html = htm.bind(h)

/** A value outside of any component. `useValue` draws a component again when it changes. */
export class Value {
  constructor(now) {
    this.now = now
    this.listeners = new Set()
  }

  set(now) {
    if (Object.is(now, this.now)) return
    this.now = now
    for (const listener of [...this.listeners]) listener(now)
  }

  listen(listener) {
    this.listeners.add(listener)
    return () => this.listeners.delete(listener)
  }
}

export function useValue(value) {
  const [, again] = useReducer((n) => n + 1, 0)
  useEffect(() => value.listen(again), [value])
  return value.now
}

/** Draw again every `seconds`, for what shows how long something takes; not while nothing ticks (0). */
export function useTick(seconds) {
  const [, again] = useReducer((n) => n + 1, 0)
  useEffect(() => {
    if (!seconds) return undefined
    const timer = setInterval(again, seconds * 1000)
    return () => clearInterval(timer)
  }, [seconds])
}

export const cls = (...names) => names.filter(Boolean).join(' ')
