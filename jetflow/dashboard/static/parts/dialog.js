// Dialogs are the browser's own: they trap focus, close on Escape, and give the focus back.
import { html, useEffect, useLayoutEffect, useRef, useState } from './html.js'
import { Icon } from './icons.js'
import { useKeys } from './keys.js'
import { Refused } from './said.js'

export function Dialog({ title, close, className = '', children }) {
  const ref = useRef(null)
  useLayoutEffect(() => { // before the next key is pressed
    const dialog = ref.current
    if (!dialog.open) dialog.showModal()
    return () => dialog.open && dialog.close()
  }, [])
  return html`<dialog ref=${ref} class=${className} aria-label=${title} onClose=${close}
    onClick=${(event) => event.target === ref.current && ref.current.close()}>
    ${className.includes('palette') ? null : html`<header><h2 class="grow">${title}</h2>
      <button type="button" class="btn quiet icon" aria-label="Close" onClick=${() => ref.current.close()}><${Icon} name="close" />
        </button></header>`}
    ${children}</dialog>`
}

/** Ask before something is done. `run` does it; what it raises is shown, and nothing closes. */
export function Confirm({ title, children, verb, danger = false, run, close, word = null }) {
  const [busy, setBusy] = useState(false)
  const [problem, setProblem] = useState(null)
  const [typed, setTyped] = useState('')
  const submit = async (event) => {
    event.preventDefault()
    setBusy(true)
    try {
      await run(event.currentTarget)
      close()
    } catch (error) {
      setProblem(error)
      setBusy(false)
    }
  }
  return html`<${Dialog} title=${title} close=${close}><form class="body" onSubmit=${submit}>
    <div class="stack tight">${children}</div>
    ${word && html`<div class="field"><label for="confirm-word">Type <b>${word}</b> to go on</label>
      <input id="confirm-word" class="input" autocomplete="off" value=${typed} onInput=${(e) => setTyped(e.target.value)} /></div>`}
    <${Refused} problem=${problem} />
    <div class="actions"><button type="button" class="btn" onClick=${(e) => e.target.closest('dialog').close()}>Leave it</button>
      <button class=${danger ? 'btn danger main' : 'btn main'} disabled=${busy || (word && typed !== word)}>${busy ? 'Working…' : verb}
        </button></div>
  </form></${Dialog}>`
}

/** A sheet at the side that leaves the page usable. Escape closes it; the focus goes in, and back. */
export function Drawer({ title, close, head, children }) {
  const ref = useRef(null)
  useEffect(() => {
    const before = /** @type {HTMLElement | null} */ (document.activeElement)
    ref.current.focus({ preventScroll: true })
    return () => before?.isConnected && before.focus({ preventScroll: true })
  }, [title])
  useKeys({ Escape: close })
  return html`<aside class="drawer" ref=${ref} tabindex="-1" aria-label=${title}>
    <header><div class="grow">${head ?? html`<h2>${title}</h2>`}</div>
      <button class="btn quiet icon" aria-label="Close" title="Close (Esc)" onClick=${close}><${Icon} name="close" /></button></header>
    <div class="body">${children}</div></aside>`
}

/** A button with a list below it. */
export function Menu({ label, icon = 'more', text = '', items }) {
  const [open, set] = useState(false)
  const ref = useRef(null)
  useEffect(() => {
    if (!open) return undefined
    const away = (event) => { if (!ref.current.contains(event.target) || event.key === 'Escape') set(false) }
    document.addEventListener('pointerdown', away)
    document.addEventListener('keydown', away)
    ref.current.querySelector('ul button, ul a')?.focus()
    return () => { document.removeEventListener('pointerdown', away); document.removeEventListener('keydown', away) }
  }, [open])
  useKeys({ Escape: () => { set(false); ref.current.querySelector('button').focus() } }, open)
  return html`<div class="menu" ref=${ref}><button type="button" class=${text ? 'btn' : 'btn icon'} aria-label=${text ? undefined : label}
    title=${text ? undefined : label} aria-expanded=${open}
    onClick=${() => set(!open)}>${text}<${Icon} name=${icon} size=${text ? 12 : 16} /></button>
    ${open && html`<ul>${items.filter(Boolean).map((item) => html`<li key=${item.label}><button onClick=${() => { set(false); item.run() }}>
      <${Icon} name=${item.icon} size=${14} />${item.label}${item.key && html`<kbd>${item.key}</kbd>`}</button></li>`)}</ul>`}</div>`
}
