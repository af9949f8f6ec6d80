package jetflow

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"jetflow.dev/go/internal/runs"
	"jetflow.dev/go/internal/wire"
)

// Error is an error whose type the wire format reserves. Compare it by errors.Is with one of the variables below.
type Error = runs.Fault

// What is refused, or how a run ends, by name. Each is compared by its type alone.
var (
	ErrInvalidInput    = &Error{Type: "InvalidInput"}
	ErrInvalidOutput   = &Error{Type: "InvalidOutput"}
	ErrPayloadTooLarge = &Error{Type: "PayloadTooLarge"}
	ErrKeyConflict     = &Error{Type: "KeyConflict"}
	ErrUnknownWorkflow = &Error{Type: "UnknownWorkflow"}
	ErrRecentlyDeleted = &Error{Type: "RecentlyDeleted"}
	ErrDepthExceeded   = &Error{Type: "DepthExceeded"}
	ErrTreeTooLarge    = &Error{Type: "TreeTooLarge"}
	ErrLostValue       = &Error{Type: "LostValue"}
)

// ErrParked says that a step waits cold, and will begin again when it can go on. Return it as it is: whatever the
// function returns then is dropped.
var ErrParked = errors.New("jetflow: the step is parked, and begins again when its children have ended: return this error")

// Why the context of a step is done, as context.Cause tells.
var (
	ErrCancelled   = errors.New("jetflow: the run was cancelled")
	ErrRunTimeout  = errors.New("jetflow: the run's deadline has passed")
	ErrStepTimeout = errors.New("jetflow: the step's timeout has passed")
	ErrStopping    = errors.New("jetflow: the worker stops")
)

// Failure is how a step or a child failed.
type Failure = wire.Failure

// RunFailed says that a run did not succeed.
type RunFailed struct {
	Run    string
	Status string // failed, timed_out or cancelled
	Errors []Failure
}

func (e *RunFailed) Error() string {
	said := fmt.Sprintf("run %s %s", e.Run, strings.ReplaceAll(e.Status, "_", " "))
	for _, one := range e.Errors {
		said += fmt.Sprintf("; %s: %s", one.Type, one.Message)
	}
	return said
}

// ChildrenFailed says that a join's policy was not met. Each child that failed is a *RunFailed.
type ChildrenFailed struct {
	Total  int
	Failed []*RunFailed
}

func (e *ChildrenFailed) Error() string {
	if len(e.Failed) == 0 {
		return fmt.Sprintf("too few of %d children succeeded in time", e.Total)
	}
	return fmt.Sprintf("%d of %d children failed; the first: %v", len(e.Failed), e.Total, e.Failed[0])
}

// Unwrap returns the errors of the children.
func (e *ChildrenFailed) Unwrap() []error {
	all := make([]error, len(e.Failed))
	for at, one := range e.Failed {
		all[at] = one
	}
	return all
}

type nonRetryable struct{ error }

func (e nonRetryable) Unwrap() error { return e.error }

// NonRetryable has a step fail at once with an error, whatever its Retry says.
func NonRetryable(err error) error { return nonRetryable{err} }

type retryAfter struct {
	error
	delay time.Duration
}

func (e retryAfter) Unwrap() error { return e.error }

// RetryAfter has a step tried again after a delay, if attempts are left.
func RetryAfter(delay time.Duration, err error) error { return retryAfter{err, delay} }

// panicked is a panic of a step's function: an attempt that failed.
type panicked struct {
	value any
	stack string
}

func (e *panicked) Error() string { return fmt.Sprint("panic: ", e.value) }

// failure returns an error as records have it.
func failure(step string, err error) *wire.Failure {
	made := &wire.Failure{Message: err.Error(), Step: &step}
	var stop nonRetryable
	var children *ChildrenFailed
	var child *RunFailed
	var crash *panicked
	fault := runs.FaultOf(err)
	switch {
	case fault != nil:
		made.Type, made.Message = fault.Type, fault.Message
	case errors.As(err, &stop):
		made.Type = "NonRetryable"
	case errors.As(err, &children):
		made.Type = "ChildrenFailed"
	case errors.As(err, &child):
		made.Type = "ChildFailed"
	case errors.As(err, &crash):
		made.Type, made.Traceback = "Panic", crash.stack
	default:
		made.Type = typeName(err)
	}
	if made.Message = strings.ToValidUTF8(made.Message, "�"); len(made.Message) > 20_000 {
		made.Message = strings.ToValidUTF8(made.Message[:20_000], "") + "…"
	}
	return made
}

// typeName returns what a type of errors is called; one without a name of its own is an Error.
func typeName(err error) string {
	var later retryAfter
	if errors.As(err, &later) && later.error != nil {
		err = later.error
	}
	for {
		name := strings.TrimLeft(fmt.Sprintf("%T", err), "*")
		_, own, _ := strings.Cut(name, ".")
		if own != "errorString" && own != "wrapError" && own != "wrapErrors" && own != "joinError" && own != "" {
			return own
		}
		if err = errors.Unwrap(err); err == nil {
			return "Error"
		}
	}
}
