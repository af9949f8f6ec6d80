package jetflow

import (
	"iter"

	"jetflow.dev/go/internal/runs"
	"jetflow.dev/go/internal/wire"
)

// ChildrenOf yields the children of a step before this one, in the order in which they ended. They are read while they
// are asked for, so that a step may have a million. An error ends it.
func ChildrenOf[Out any](ctx *Ctx, of Named) iter.Seq2[Child[Out], error] {
	return func(yield func(Child[Out], error) bool) {
		e, t := ctx.x.w.engine, ctx.x.task
		join := runs.Join{Root: t.Root, Run: t.Run, Step: of.StepName()}
		fail := func(err error) { yield(Child[Out]{}, err) }
		family, err := e.Family(ctx, join)
		if err != nil {
			fail(err)
			return
		}
		tell := func(id string, outcome *wire.Outcome) bool {
			return yield(read[Out](ctx, id, outcome), nil)
		}
		for message, err := range e.After(ctx, e.Names.Records(), e.Names.Run(t.Root, t.Run, join.Step, "*"), family.UpTo) {
			if err != nil {
				fail(err)
				return
			}
			id := wire.LastToken(message.Subject)
			if (family.Members == nil || family.Members[id]) && !tell(id, wire.DecodeOutcome(message.Body)) {
				return
			}
		}
		for _, child := range family.Borrowed {
			outcome, _, err := e.Outcome(ctx, e.Names.Run(t.Root, t.Run, child[1], child[0]))
			if err != nil {
				fail(err)
				return
			}
			if outcome != nil && !tell(child[0], outcome) {
				return
			}
		}
	}
}
