// What the pages use of preact; the module itself is vendored as it is, without types.
export interface Node { readonly type: unknown }
export function h(type: unknown, props: unknown, ...children: unknown[]): Node
export function render(node: unknown, into: Element | null): void
export const Fragment: unknown
