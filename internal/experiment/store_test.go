package experiment

import (
	"encoding/csv"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestStore: what was appended is there after an end in the middle of a line,
// and exported.
func TestStore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out")
	_, err := Open(dir)
	require.ErrorContains(t, err, "has no results of an experiment")
	s, err := Create(dir, []byte(good), Environment{File: "a/modes.yaml", Version: "v1"})
	require.NoError(t, err)
	spec, err := Parse("modes.yaml", []byte(good))
	require.NoError(t, err)
	for i, trial := range spec.Plan()[:4] {
		r := Run{ID: trial.ID(), Cell: trial.Cell, Order: i, Phases: []Phase{{Name: "p", Figure: 1, Unit: "op/s"}}}
		if i == 3 {
			r = Run{ID: trial.ID(), Cell: trial.Cell, Order: i, Error: "no, \"never\"\n"}
		}
		require.NoError(t, s.Append(r))
	}
	f, err := os.OpenFile(filepath.Join(dir, fileRuns), os.O_WRONLY|os.O_APPEND, 0)
	require.NoError(t, err)
	_, err = f.WriteString(`{"id":"torn`)
	require.NoError(t, err)
	require.NoError(t, f.Close())

	_, err = Create(dir, []byte(good), Environment{})
	require.ErrorContains(t, err, "another zoidfs experiment run is at work in")
	require.NoError(t, s.Close())
	_, err = Create(dir, []byte(good+"\n"), Environment{})
	require.ErrorContains(t, err, "another version")
	s, err = Create(dir, []byte(good), Environment{Version: "v2"})
	require.NoError(t, err)
	runs, err := s.Runs()
	require.NoError(t, err)
	require.Len(t, runs, 4)
	require.True(t, runs[2].Done())
	require.False(t, runs[3].Done())

	require.NoError(t, s.Export())
	require.NoError(t, s.Close())
	b, err := os.ReadFile(filepath.Join(dir, fileResults))
	require.NoError(t, err)
	var r Results
	require.NoError(t, json.Unmarshal(b, &r))
	require.Equal(t, "v1", r.Environment.Version, "that of the first run")
	require.Equal(t, "modes", r.Spec.Name)
	for name, lines := range map[string]int{fileCSV: 5, fileSummary: 4} {
		f, err := os.Open(filepath.Join(dir, name))
		require.NoError(t, err)
		rows, err := csv.NewReader(f).ReadAll()
		require.NoError(t, err)
		require.Len(t, rows, lines, name)
		require.NoError(t, f.Close())
	}
}
