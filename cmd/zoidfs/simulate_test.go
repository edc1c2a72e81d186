package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSimulate: the table, the figures as CSV and JSON, and the plot; the same
// seed gives the same of each.
func TestSimulate(t *testing.T) {
	dir := t.TempDir()
	play := func(args ...string) (table string, files [2][]byte) {
		csvFile, svgFile := filepath.Join(dir, "x.csv"), filepath.Join(dir, "x.svg")
		var out bytes.Buffer
		args = append([]string{"zoidfs", "simulate", "--ranks", "64,8", "--nodes", "4", "--pattern", "strided,open", "--csv", csvFile, "--svg", svgFile}, args...)
		require.Zero(t, run(t.Context(), args, &out, &out), out.String())
		for i, name := range []string{csvFile, svgFile} {
			b, err := os.ReadFile(name)
			require.NoError(t, err)
			files[i] = b
		}
		return out.String(), files
	}
	table, files := play()
	again, filesAgain := play()
	require.Equal(t, table, again)
	require.Equal(t, files, filesAgain)

	rows, err := csv.NewReader(bytes.NewReader(files[0])).ReadAll()
	require.NoError(t, err)
	require.Len(t, rows, 1+2*2*3) // a head; patterns, ranks, ways
	require.Equal(t, []string{"strided", "false", "plain", "8", "4"}, rows[1][:5])
	require.Equal(t, 2+2*2*3, len(strings.Split(strings.TrimSpace(table), "\n"))-1, "two heads, an empty line, and a line each")
	require.Contains(t, string(files[1]), "open, zoidfs")

	asJSON, _ := play("--json")
	var p played
	require.NoError(t, json.Unmarshal([]byte(strings.SplitN(asJSON, "\n", 2)[0]), &p))
	require.Equal(t, 128, p.ServerRequests)
	require.Equal(t, 128, p.Calls)
}
