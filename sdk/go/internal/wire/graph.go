package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
)

// Node is a step and those that it comes after.
type Node struct {
	Name  string   `json:"name"`
	After []string `json:"after"`
}

// Graph is the steps of a workflow.
type Graph struct {
	Workflow  string  `json:"workflow"`
	Nodes     []Node  `json:"nodes"`
	OnFailure *string `json:"on_failure,omitempty"`
	OnSuccess *string `json:"on_success,omitempty"`
	FailFast  bool    `json:"fail_fast,omitempty"`
	// Conditional are the steps that conditions decide, which this SDK does not evaluate.
	Conditional []string `json:"conditional,omitempty"`
	// Gated runs, and those with Levels, are admitted before they begin, by workers of level full.
	Gated  bool     `json:"gated,omitempty"`
	Levels []string `json:"levels,omitempty"`
	// Limited are the steps with limits of their own, which workers of level full run.
	Limited []string `json:"limited,omitempty"`
}

// DecodeGraph reads a graph.
func DecodeGraph(text []byte) (*Graph, error) {
	made := &Graph{}
	if err := json.Unmarshal(text, made); err != nil {
		return nil, err
	}
	return made, made.Check()
}

// Check refuses a graph that is none.
func (g *Graph) Check() error {
	if g.Workflow == "" || len(g.Nodes) == 0 {
		return errors.New("a graph has a workflow and nodes")
	}
	known := map[string]bool{}
	for _, node := range g.Nodes {
		for _, before := range node.After {
			if !known[before] {
				return fmt.Errorf("step %q comes after %q, which is not before it", node.Name, before)
			}
		}
		if known[node.Name] || !isStep(node.Name) {
			return fmt.Errorf("step %q is there twice, or its name is none", node.Name)
		}
		known[node.Name] = true
	}
	return nil
}

// Node returns a step, or nil.
func (g *Graph) Node(step string) *Node {
	at := slices.IndexFunc(g.Nodes, func(node Node) bool { return node.Name == step })
	if at < 0 {
		return nil
	}
	return &g.Nodes[at]
}

// IsFailureStep tells whether a step is the one on failure.
func (g *Graph) IsFailureStep(step string) bool { return g.OnFailure != nil && *g.OnFailure == step }

// IsSequel tells whether a step runs when its run has ended.
func (g *Graph) IsSequel(step string) bool {
	return g.IsFailureStep(step) || g.OnSuccess != nil && *g.OnSuccess == step
}

// Has tells whether tasks of a step may exist.
func (g *Graph) Has(step string) bool {
	return g.Node(step) != nil || g.IsSequel(step) || (step == Start && g.First() == Start)
}

// First returns the step of a run's first task.
func (g *Graph) First() string {
	if g.Gated || len(g.Levels) > 0 {
		return Admit
	}
	if first := g.Behind(Start); len(first) == 1 {
		return first[0]
	}
	return Start
}

// Behind returns the steps that come after a step; of Start, those that come after none.
func (g *Graph) Behind(step string) (names []string) {
	for _, node := range g.Nodes {
		if (step == Start && len(node.After) == 0) || slices.Contains(node.After, step) {
			names = append(names, node.Name)
		}
	}
	return names
}

// Lasts returns the steps that nothing comes after.
func (g *Graph) Lasts() (names []string) {
	for _, node := range g.Nodes {
		if len(g.Behind(node.Name)) == 0 {
			names = append(names, node.Name)
		}
	}
	return names
}

// IsOnlyLast tells whether a step is the only last one.
func (g *Graph) IsOnlyLast(step string) bool {
	lasts := g.Lasts()
	return len(lasts) == 1 && lasts[0] == step
}

// Beside returns the steps that may have borrowed a child of a step: those that do not end before it begins.
func (g *Graph) Beside(step string) (names []string) {
	before := map[string]bool{step: true}
	for _, node := range slices.Backward(g.Nodes) { // each stands behind those that it comes after
		for _, name := range node.After {
			before[name] = before[name] || before[node.Name]
		}
	}
	for _, node := range g.Nodes {
		if !before[node.Name] {
			names = append(names, node.Name)
		}
	}
	return names
}

// IsShared tells whether another step may spawn the same children: one that neither ends before a step begins nor begins
// after it has ended.
func (g *Graph) IsShared(step string) bool {
	return slices.ContainsFunc(g.Beside(step), func(other string) bool { return slices.Contains(g.Beside(other), step) })
}

// IsConditional tells whether conditions decide whether a step runs.
func (g *Graph) IsConditional(step string) bool { return slices.Contains(g.Conditional, step) }

// Decide returns what becomes of a step, by how those before it have ended: run, cancel or skip. One with conditions
// has its task, though all before it were skipped: they decide.
func Decide(before []string, conditional bool) string {
	other := func(status string) bool { return status != Skipped }
	bad := func(status string) bool { return other(status) && status != Succeeded }
	switch {
	case slices.ContainsFunc(before, bad):
		return "cancel"
	case !conditional && len(before) > 0 && !slices.ContainsFunc(before, other):
		return "skip"
	}
	return "run"
}

// Declaration is what the registry says of a workflow.
type Declaration struct {
	Graph    *Graph              `json:"graph"`
	Version  string              `json:"version"`
	Deadline *float64            `json:"deadline,omitempty"`
	Input    json.RawMessage     `json:"input,omitempty"`
	Output   json.RawMessage     `json:"output,omitempty"`
	Steps    map[string]StepInfo `json:"steps,omitempty"`
}

// StepInfo is what is shown of a step.
type StepInfo struct {
	Attempts   int      `json:"attempts"`
	Timeout    *float64 `json:"timeout,omitempty"`
	MaxRunning int      `json:"max_running,omitempty"`
	Join       *Policy  `json:"join,omitempty"`
}

// DecodeDeclaration reads a declaration.
func DecodeDeclaration(text []byte) (*Declaration, error) {
	made := &Declaration{}
	if err := decode(text, made, "graph", "version"); err != nil {
		return nil, err
	}
	return made, made.Graph.Check()
}

// Policy says how many children may fail. The zero Policy: none, and all are waited for.
type Policy struct {
	Quorum     *int     `json:"quorum,omitempty"`
	Tolerated  int      `json:"tolerated,omitempty"`
	Fraction   *float64 `json:"fraction,omitempty"`
	Anything   bool     `json:"anything,omitempty"`
	Early      bool     `json:"early,omitempty"`
	CancelRest bool     `json:"cancel_rest,omitempty"`
	Seconds    *float64 `json:"seconds,omitempty"`
}

// Needed returns how many outcomes are needed at least for a join over total children to be decided well.
func (p Policy) Needed(total int) int {
	if p.Quorum == nil {
		return total
	}
	if *p.Quorum > total {
		return 0
	}
	return *p.Quorum
}

func (p Policy) allowed(total int) int {
	switch {
	case p.Anything:
		return total
	case p.Fraction != nil:
		return int(math.Floor(*p.Fraction*float64(total) + 0.000001))
	}
	return p.Tolerated
}

// Verdict returns met, missed or open.
func (p Policy) Verdict(total, succeeded, ended int) string {
	failed := ended - succeeded
	if p.Quorum != nil {
		switch {
		case succeeded >= *p.Quorum:
			return "met"
		case total-failed < *p.Quorum:
			return "missed"
		}
		return "open"
	}
	switch over := failed > p.allowed(total); {
	case ended >= total && !over:
		return "met"
	case over && (ended >= total || p.Early):
		return "missed"
	}
	return "open"
}

// Missing returns how many more outcomes may be needed at least to decide; 0 if it is decided.
func (p Policy) Missing(total, succeeded, ended int) int {
	if p.Verdict(total, succeeded, ended) != "open" {
		return 0
	}
	failed := ended - succeeded
	switch {
	case p.Quorum != nil:
		return max(1, min(*p.Quorum-succeeded, total-failed-*p.Quorum+1))
	case p.Early:
		return max(1, min(total-ended, p.allowed(total)-failed+1))
	}
	return max(1, total-ended)
}
