package broker

import (
	"os"
	"testing"
)

func TestTopologyIsTheOneOfTheDocument(t *testing.T) {
	told, err := os.ReadFile("../../../../docs/topology.json")
	if err != nil {
		t.Fatal(err)
	}
	if topology != string(told) {
		t.Error("topology.json is not docs/topology.json: copy it again")
	}
}
