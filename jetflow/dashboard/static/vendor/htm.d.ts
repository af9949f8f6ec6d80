declare const htm: {
  bind(make: (type: unknown, props: unknown, ...children: unknown[]) => import('./preact').Node):
    (parts: TemplateStringsArray, ...values: unknown[]) => import('./preact').Node
}
export default htm
