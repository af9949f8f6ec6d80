type Clean = (() => void) | void | undefined
// What is kept takes any shape: what is asked for comes from JSON.
export function useState(first?: any): [any, (next: any) => void]
export function useReducer<T, A>(reduce: (before: T, action: A) => T, first: T): [T, (action?: A) => void]
export function useEffect(run: () => Clean | (() => unknown), on?: readonly unknown[]): void
export function useLayoutEffect(run: () => Clean | (() => unknown), on?: readonly unknown[]): void
export function useMemo<T>(make: () => T, on: readonly unknown[]): T
export function useCallback<T>(call: T, on: readonly unknown[]): T
export function useRef(first?: any): { current: any }
export function useErrorBoundary(on?: (error: unknown) => void): [unknown, () => void]
export function useId(): string
