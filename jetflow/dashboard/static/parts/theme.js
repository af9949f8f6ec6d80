// Light or dark: as the system has it, until somebody says otherwise.
import { preferences } from './format.js'

export function setTheme(theme) {
  preferences.set('theme', theme)
  if (theme === 'system') delete document.documentElement.dataset.theme
  else document.documentElement.dataset.theme = theme
}

export const isDark = () =>
  document.documentElement.dataset.theme === 'dark' || (!document.documentElement.dataset.theme &&
    matchMedia('(prefers-color-scheme: dark)').matches)

export const flip = () => setTheme(isDark() ? 'light' : 'dark')

export function startTheme() {
  setTheme(preferences.get('theme', 'system'))
  if (preferences.get('density') === 'compact') document.documentElement.dataset.density = 'compact'
}
