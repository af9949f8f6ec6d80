package runs

import "context"

// Family is which children of a step count: its members, or all that are stored up to a sequence.
type Family struct {
	Members  map[string]bool
	Borrowed [][2]string
	UpTo     uint64
}

// Family tells which children of a step that has ended count, as its join did.
func (e *Engine) Family(ctx context.Context, join Join) (*Family, error) {
	record, err := e.JoinRecord(ctx, join)
	if err != nil {
		return nil, err
	}
	made := &Family{}
	if _, stored, err := e.Outcome(ctx, e.Names.Step(join.Root, join.Run, join.Step)); err != nil {
		return nil, err
	} else if stored != nil {
		made.UpTo = stored.Seq
	}
	if record == nil || record.Kind == "parked" {
		made.Members, err = e.SpawnedBy(ctx, join)
		return made, err
	}
	made.Borrowed = record.Borrowed
	if record.Members != nil {
		made.Members, err = record.MemberIDs()
		return made, err
	}
	_, made.Members, err = e.ended(ctx, join, record)
	return made, err
}
