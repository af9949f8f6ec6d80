package main

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// What tests/chaos/plan.py says, which the checker goes by.

type leaf struct {
	Seed int64 `json:"seed"`
}

type node struct {
	Seed     int64 `json:"seed"`
	Depth    int   `json:"depth,omitempty"`
	Poisoned bool  `json:"poisoned,omitempty"`
}

type total struct {
	Total  int64 `json:"total"`
	Failed int64 `json:"failed"`
}

var kinds = []string{"branch", "scatter", "diamond", "narrow", "several", "hasty", "timely"}

func draw(seed int64, what string, below uint64) int64 {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d/%s", seed, what))
	return int64(binary.BigEndian.Uint64(sum[:8]) % below)
}

func leafValue(seed int64) int64   { return draw(seed, "value", 1000) }
func sharedLeaf(seed int64) int64  { return draw(seed, "shared", 1<<40) }
func failsBefore(seed int64) int64 { return max(0, draw(seed, "fails", 14)-11) }
func lateAttempts(seed int64) int  { return int(1 + draw(seed, "late attempts", 2)) }

func pause(seed int64, what string, attempt int) float64 {
	number := float64(draw(seed, fmt.Sprintf("pause %s %d", what, attempt), 1000)) / 1000
	if draw(seed, fmt.Sprintf("held %s %d", what, attempt), 2) == 1 {
		return 0.05 + number/2
	}
	return 1.5 + 2.5*number
}

func bound(seed int64) float64 { return 1.2 + float64(draw(seed, "bound", 300))/100 }

func seeds(seed int64, what string, count int64) []int64 {
	made := make([]int64, count)
	for at := range made {
		made[at] = draw(seed, fmt.Sprintf("%s %d", what, at), 1<<40)
	}
	return made
}

func secondBatch(seed, total int64) []int64 {
	return seeds(seed, fmt.Sprintf("second %d", total), (total+seed)%4)
}

// group are leaves that are spawned together.
type group struct {
	child string
	seeds []int64
	keyed bool
}

func leaves(kind string, n node) []group {
	groups := []group{
		{"leaf", seeds(n.Seed, "keyed", 1+draw(n.Seed, "keyed", 6)), true},
		{"leaf", seeds(n.Seed, "hashed", draw(n.Seed, "hashed", 5)), false},
		{"sync-leaf", seeds(n.Seed, "sync", draw(n.Seed, "sync", 3)), false},
		{"apart-leaf", seeds(n.Seed, "apart", draw(n.Seed, "apart", 2)), false},
	}
	if kind == "timely" || draw(n.Seed, "late", 6) == 0 {
		groups = append(groups, group{"late", seeds(n.Seed, "late", draw(n.Seed, "late ones", 3)), false})
	}
	forgiving := kind == "branch" || kind == "timely"
	switch {
	case n.Poisoned:
		groups = append(groups, group{"poison", seeds(n.Seed, "poison", 1), true})
	case forgiving && draw(n.Seed, "doom", 4) == 0, kind == "scatter" && draw(n.Seed, "doom", 12) == 0:
		groups = append(groups, group{"doomed", seeds(n.Seed, "doomed", 1+draw(n.Seed, "doomed", 2)), false})
	}
	return groups
}

func subtrees(kind string, n node) map[string][]node {
	found := map[string][]node{}
	if n.Depth == 0 {
		return found
	}
	count := int64(1)
	switch kind {
	case "branch":
		count += draw(n.Seed, "trees", 3)
	case "scatter":
		count += draw(n.Seed, "trees", 2)
	}
	for _, below := range seeds(n.Seed, "tree", count) {
		child := kinds[draw(below, "kind", uint64(len(kinds)))]
		found[child] = append(found[child], node{Seed: below, Depth: n.Depth - 1})
	}
	return found
}
