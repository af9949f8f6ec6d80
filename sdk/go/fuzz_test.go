package jetflow_test

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"testing"

	"jetflow.dev/go/internal/wire"
)

// TestCanonicalAgainstPython holds canonical JSON to jetflow's own, on 10,000 random texts and schemas. PYTHON is a
// Python that has jetflow.
func TestCanonicalAgainstPython(t *testing.T) {
	python := os.Getenv("PYTHON")
	if python == "" {
		t.Skip("PYTHON, which has jetflow, is not set: make test-sdk-go does it")
	}
	command := exec.Command(python, "conformance/texts.py", "10000", "7")
	command.Stderr = os.Stderr
	out, err := command.StdoutPipe()
	if err == nil {
		err = command.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	compared, refused := 0, 0
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var given struct {
			Text      string
			Schema    json.RawMessage
			Canonical *string
		}
		if err := json.Unmarshal(lines.Bytes(), &given); err != nil {
			t.Fatal(err)
		}
		schema, err := wire.ParseSchema(given.Schema)
		if err != nil {
			t.Fatal(err)
		}
		canonical, err := schema.Canonical([]byte(given.Text))
		switch {
		case given.Canonical == nil && err != nil:
			refused++
		case given.Canonical == nil || err != nil || string(canonical) != *given.Canonical:
			wanted := "refused"
			if given.Canonical != nil {
				wanted = *given.Canonical
			}
			t.Errorf("%.300q by %.500s: %q (%v), not %q", given.Text, given.Schema, canonical, err, wanted)
		}
		compared++
	}
	if err := command.Wait(); err != nil {
		t.Fatal(err)
	}
	if compared != 10_000 || refused == 0 {
		t.Errorf("%d texts were compared, and %d refused", compared, refused)
	}
}
